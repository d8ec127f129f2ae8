"""All experts behind one port: picks the backend, bounds the calls in flight, retries, keeps the time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, cast, runtime_checkable

from domain.chat import Chunk
from domain.deadline import Clock, Deadline
from domain.errors import ExpertError, ExpertProtocolError, ExpertTimeout
from domain.experts import Backend, ExpertCard
from domain.patience import Patience
from domain.plan import Candidate, ExpertCall
from domain.time_limit import TimeLimit
from workers.addresses import AddressPolicy
from workers.backends import BACKENDS, BackendSettings
from workers.discovery import DiscoveredModel, discovered_models, models_url, without_version
from workers.in_flight import InFlight, OnWait, unheard
from workers.limits import EmbeddedLimits, HttpLimits, PoolLimits
from workers.openai_worker import OpenAIWorker
from workers.retry import retried
from workers.worker import Worker

if TYPE_CHECKING:
    from workers.managed.fleet import Fleet

T = TypeVar("T")

_BEFORE_DEADLINE = "finish before the request's deadline"


@runtime_checkable
class Warmable(Protocol):
    """A worker that can load an expert before its first call."""

    async def warm(self, card: ExpertCard) -> None: ...


@runtime_checkable
class Holding(Protocol):
    """A worker that has to bring up what runs an expert before a call can be made."""

    def held(self, call: ExpertCall) -> AbstractAsyncContextManager[ExpertCall]:
        """The call to make, which can be made as long as the block lasts."""
        ...


@dataclass(frozen=True, slots=True)
class _Limit:
    """The time that one call has: the card's, or less when the request has less."""

    deadline: Deadline
    said: str
    """How a call that exceeds it is told of it."""
    expert_at_fault: bool
    spare_s: float = 0.0
    """Of the request's time, beyond what is a fair share for the expert: so long may who reads its answer keep it waiting, and it is its
    fault still."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A stream that has begun."""

    chunks: AsyncGenerator[Chunk, None]
    first: list[Chunk]
    """What it has said so far."""
    limit: _Limit
    stack: AsyncExitStack
    """Its place, and what else it holds."""


class _Spent:
    """A watch that runs in its ``with`` blocks."""

    def __init__(self, clock: Clock) -> None:
        self.seconds = 0.0
        self._clock = clock
        self._since = 0.0

    def __enter__(self) -> None:
        self._since = self._clock()

    def __exit__(self, *_: object) -> None:
        self.seconds += self._clock() - self._since


class WorkerPool:
    """Satisfies ``orchestrator.ports.Workers``: raises only ``ExpertError`` and ``CancelledError``."""

    def __init__(
        self,
        *,
        embedded_dir: Path,
        http: HttpLimits | None = None,
        embedded: EmbeddedLimits | None = None,
        limits: PoolLimits | None = None,
        clock: Clock = time.monotonic,
        environ: Mapping[str, str] = os.environ,
        backends: Mapping[Backend, Callable[[BackendSettings], Worker]] = BACKENDS,
        fleet: Fleet | None = None,
        addresses: AddressPolicy | None = None,
        on_wait: OnWait = unheard,
    ) -> None:
        """*on_wait* hears how many seconds each call waited for its place, whether it got one or not; with its expert and role."""
        self._settings = BackendSettings(
            http=http or HttpLimits(),
            embedded=embedded or EmbeddedLimits(),
            embedded_dir=embedded_dir,
            environ=environ,
            fleet=fleet,
            addresses=addresses or AddressPolicy(),
        )
        self._fleet = fleet
        self._limits = limits or PoolLimits()
        self._clock = clock
        self._backends = backends
        self._workers: dict[Backend, Worker] = {}
        self._starting: dict[Backend, asyncio.Lock] = {backend: asyncio.Lock() for backend in backends}
        self._places = InFlight(on_wait, clock)

    async def start(self) -> None:
        """Ready to take calls. Backends start with their first call, or with ``warm``."""

    async def close(self) -> None:
        """Release every backend; calls still running fail."""
        workers, self._workers = self._workers, {}
        for worker in workers.values():
            await worker.close()

    def in_flight(self, expert_id: str) -> int:
        """Calls of the expert that run now."""
        return self._places.active(expert_id)

    def queued(self, expert_id: str) -> int:
        """Calls of the expert that wait for a place now."""
        return self._places.queued(expert_id)

    def manages(self, card: ExpertCard) -> bool:
        """Whether the expert runs on a server of the service's own, which a call may have to load first."""
        return card.backend is Backend.VLLM or (self._fleet is not None and self._fleet.manages(card))

    async def complete(self, call: ExpertCall) -> Candidate:
        started = self._clock()
        candidate, num_retries = await (self._complete_held(call) if self.manages(call.expert) else self._complete(call))
        # Made anew by hand: for every call this takes a third of what ``replace`` does.
        return Candidate(
            candidate.expert_id, candidate.choices, candidate.usage, self._clock() - started, candidate.extra, num_retries=num_retries
        )

    async def _complete(self, call: ExpertCall) -> tuple[Candidate, int]:
        async with self._place(call):
            limit = self._time_for(call)
            try:
                with TimeLimit(limit.deadline.remaining_s):
                    backend = call.expert.backend
                    worker = self._workers.get(backend) or await self._worker(backend)
                    return await self._retried(partial(worker.complete, call), call, limit.deadline)
            except TimeoutError as error:
                raise _late(call, limit) from error

    async def _complete_held(self, call: ExpertCall) -> tuple[Candidate, int]:
        """Every attempt holds the expert's server anew: if it died, it is loaded again, and has another address. The card's time runs
        only while a call does."""
        worker = await self._worker(Backend.VLLM)
        spent = _Spent(self._clock)

        async def attempt() -> Candidate:
            async with cast(Holding, worker).held(call) as made, self._place(made):
                limit = self._time_for(made, spent.seconds)
                try:
                    with spent, TimeLimit(limit.deadline.remaining_s):
                        return await worker.complete(made)
                except TimeoutError as error:
                    raise _late(made, limit) from error

        return await self._retried(attempt, call, call.deadline)

    async def stream(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
        """Pieces of the answer. A failure before the first token is tried again, a later one is the caller's to handle.

        As long as the caller holds a piece the card's time stands still; the request's does not."""
        opened = await (self._opened_held(call) if self.manages(call.expert) else self._opened(call))
        patience, idle_s, limit = Patience(), call.expert.idle_timeout_s, opened.limit
        clock, until, last = limit.deadline.clock, limit.deadline.at, call.deadline.at
        held_s = 0.0
        try:
            given_at = clock()
            for chunk in opened.first:
                yield chunk
            while True:
                now = clock()
                held_s += now - given_at
                left_s = min(until + held_s, last) - now
                try:
                    with patience.for_(idle_s if idle_s < left_s else max(0.0, left_s)):
                        chunk = await anext(opened.chunks)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise (_silent(call) if idle_s < left_s else _late(call, _held_up(limit, held_s, last))) from error
                given_at = clock()
                yield chunk
        finally:
            patience.close()
            try:
                await opened.chunks.aclose()
            finally:
                await opened.stack.aclose()

    async def check(self, card: ExpertCard) -> Candidate:
        """One real, tiny call. Raises what a request would get."""
        timeout_s = min(card.timeout_s, self._limits.check_timeout_s)
        if self.manages(card):
            timeout_s += self._limits.check_load_timeout_s
        return await self.complete(
            ExpertCall(
                expert=card,
                messages=({"role": "user", "content": "Hello"},),
                params={**card.sampling, "max_tokens": 4},
                deadline=Deadline.after(timeout_s, clock=self._clock),
                request_id=f"check-{card.id}",
            )
        )

    async def discover(self, base_url: str, api_key_ref: str | None = None) -> list[DiscoveredModel]:
        """The models that the OpenAI-compatible server at *base_url* (with its ``/v1``) serves. Raises ``ExpertError``."""
        worker = cast(OpenAIWorker, await self._worker(Backend.OPENAI))
        try:
            async with asyncio.timeout(self._limits.check_timeout_s):
                listed = await worker.get_json(models_url(base_url), api_key_ref, who=f"the server at {base_url}")
                return discovered_models(listed, base_url)
        except ExpertError as error:
            raise without_version(base_url, error) from error
        except TimeoutError as error:
            msg = f"{models_url(base_url)} did not answer within {self._limits.check_timeout_s:g} s"
            raise ExpertTimeout(msg) from error

    async def warm(self, cards: Sequence[ExpertCard]) -> None:
        """Start the backends of *cards* and load those experts that run in this process, so that no first call waits for it. Managed
        servers are the fleet's to load.

        Raises ``ExpertUnreachable`` at the first that cannot be loaded.
        """
        for card in cards:
            worker = await self._worker(Backend.VLLM if self.manages(card) else card.backend)
            if isinstance(worker, Warmable):
                await worker.warm(card)

    def _place(self, call: ExpertCall) -> AbstractAsyncContextManager[None]:
        """A place for *call* among its expert's. Raises ``ExpertTimeout`` where there is no time left to wait for one."""
        card = call.expert
        if call.deadline.expired:
            msg = f"no time was left to call expert {card.id!r}"
            raise ExpertTimeout(msg, expert_at_fault=False)
        return self._places.place(
            card.id,
            limit=card.max_in_flight,
            max_queued=card.max_queued,
            timeout_s=card.queue_timeout_s,
            deadline=call.deadline,
            role=call.role,
        )

    def _time_for(self, call: ExpertCall, spent_s: float = 0.0) -> _Limit:
        """The time that *call* has from here on: the card's limit, less what earlier attempts have *spent_s*, is for running, not for
        waiting."""
        card = call.expert
        own, left = max(0.0, card.timeout_s - spent_s), call.deadline.remaining_s
        return _Limit(
            Deadline.after(own, clock=self._clock) if own < left else call.deadline,
            said=f"finish within its {card.timeout_s:g} s" if own < left else _BEFORE_DEADLINE,
            expert_at_fault=left >= own * self._limits.fair_share,
            spare_s=left - own * self._limits.fair_share,
        )

    def _time_to_begin(self, call: ExpertCall, limit: _Limit, spent_s: float = 0.0) -> _Limit:
        """The time that the stream of *call* has for its first token: the card's own limit, where that is less than *limit*."""
        card = call.expert
        if card.first_token_timeout_s is None:
            return limit
        own = max(0.0, card.first_token_timeout_s - spent_s)
        if own >= limit.deadline.remaining_s:
            return limit
        said = f"say anything within its {card.first_token_timeout_s:g} s"
        return _Limit(Deadline.after(own, clock=self._clock), said, expert_at_fault=True)

    async def _worker(self, backend: Backend) -> Worker:
        if (running := self._workers.get(backend)) is not None:
            return running
        async with self._starting[backend]:
            if backend not in self._workers:
                worker = await asyncio.to_thread(self._backends[backend], self._settings)
                await worker.start()
                self._workers[backend] = worker
            return self._workers[backend]

    async def _opened(self, call: ExpertCall) -> _Opened:
        """A stream that has said its first token."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._place(call))
            limit = self._time_for(call)
            first_token = self._time_to_begin(call, limit)
            try:
                with TimeLimit(first_token.deadline.remaining_s):
                    worker = await self._worker(call.expert.backend)
                    begin = partial(_begun, worker, call)
                    (chunks, first), _ = await self._retried(begin, call, first_token.deadline)
            except TimeoutError as error:
                raise _late(call, first_token) from error
            return _Opened(chunks, first, limit, stack.pop_all())

    async def _opened_held(self, call: ExpertCall) -> _Opened:
        """The same for an expert on a managed server; see ``_complete_held``."""
        worker = await self._worker(Backend.VLLM)
        spent = _Spent(self._clock)

        async def attempt() -> _Opened:
            async with AsyncExitStack() as stack:
                made = await stack.enter_async_context(cast(Holding, worker).held(call))
                await stack.enter_async_context(self._place(made))
                limit = self._time_for(made, spent.seconds)
                first_token = self._time_to_begin(made, limit, spent.seconds)
                try:
                    with spent, TimeLimit(first_token.deadline.remaining_s):
                        chunks, first = await _begun(worker, made)
                except TimeoutError as error:
                    raise _late(made, first_token) from error
                return _Opened(chunks, first, limit, stack.pop_all())

        return (await self._retried(attempt, call, call.deadline))[0]

    def _retried(self, attempt: Callable[[], Awaitable[T]], call: ExpertCall, deadline: Deadline) -> Awaitable[tuple[T, int]]:
        return retried(attempt, self._limits, deadline, call.expert.id, repeatable=call.is_repeatable, again=call.again)


async def _begun(worker: Worker, call: ExpertCall) -> tuple[AsyncGenerator[Chunk, None], list[Chunk]]:
    """One attempt at a stream, and what it has said when it has said its first token."""
    chunks, first = worker.stream(call), []
    try:
        async for chunk in chunks:
            first.append(chunk)
            if _says_something(chunk):
                return chunks, first
        if any(chunk.choices for chunk in first):
            return chunks, first
        msg = f"expert {call.expert.id!r} ended its stream without saying anything"
        raise ExpertProtocolError(msg)
    except BaseException:
        await chunks.aclose()
        raise


def _says_something(chunk: Chunk) -> bool:
    """Whether it holds more than the role that servers open with, so that nothing can be taken back any more."""
    return any(
        choice.finish_reason is not None or any(value for key, value in choice.delta.items() if key != "role") for choice in chunk.choices
    )


def _held_up(limit: _Limit, held_s: float, last: float) -> _Limit:
    """What *limit* says to a stream whose reader has held its pieces for *held_s*, in a request that ends at *last*."""
    said = limit.said if limit.deadline.at + held_s < last else _BEFORE_DEADLINE
    return replace(limit, said=said, expert_at_fault=limit.expert_at_fault and limit.spare_s >= held_s)


def _late(call: ExpertCall, limit: _Limit) -> ExpertTimeout:
    return ExpertTimeout(f"expert {call.expert.id!r} did not {limit.said}", expert_at_fault=limit.expert_at_fault)


def _silent(call: ExpertCall) -> ExpertTimeout:
    return ExpertTimeout(f"expert {call.expert.id!r} went silent for {call.expert.idle_timeout_s:g} s in the middle of its answer")
