"""All experts behind one port: picks the backend, bounds the calls in flight, retries, keeps the time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from domain.chat import Chunk
from domain.deadline import Clock, Deadline
from domain.errors import ExpertError, ExpertProtocolError, ExpertTimeout
from domain.experts import Backend, ExpertCard
from domain.plan import Candidate, ExpertCall
from workers.backends import BACKENDS, BackendSettings
from workers.discovery import DiscoveredModel, discovered_models, models_url, without_version
from workers.in_flight import InFlight
from workers.limits import EmbeddedLimits, HttpLimits, PoolLimits
from workers.openai_worker import OpenAIWorker
from workers.retry import attempts
from workers.worker import Worker


@runtime_checkable
class Warmable(Protocol):
    """A worker that can load an expert before its first call."""

    async def warm(self, card: ExpertCard) -> None: ...


@dataclass(frozen=True, slots=True)
class _Limit:
    """The time that one call has: the card's, or less when the request has less."""

    deadline: Deadline
    said: str
    """How a call that exceeds it is told of it."""
    expert_at_fault: bool


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
    ) -> None:
        self._settings = BackendSettings(
            http=http or HttpLimits(), embedded=embedded or EmbeddedLimits(), embedded_dir=embedded_dir, environ=environ
        )
        self._limits = limits or PoolLimits()
        self._clock = clock
        self._backends = backends
        self._workers: dict[Backend, Worker] = {}
        self._starting: dict[Backend, asyncio.Lock] = {backend: asyncio.Lock() for backend in backends}
        self._places = InFlight(self._limits.max_queued)

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

    async def complete(self, call: ExpertCall) -> Candidate:
        started = self._clock()
        async with self._place(call) as limit, _within(call, limit):
            worker = await self._worker(call.expert.backend)
            async for attempt in attempts(self._limits, limit.deadline, call.expert.id):
                with attempt:
                    candidate = await worker.complete(call)
                    return replace(candidate, latency_s=self._clock() - started, num_retries=attempt.num - 1)
        raise AssertionError("the attempts end with a candidate or an error")  # pragma: no cover

    async def stream(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
        """Pieces of the answer. A failure before the first token is tried again, a later one is the caller's to handle."""
        async with self._place(call) as limit:
            chunks, first = await self._opened(call, limit)
            try:
                for chunk in first:
                    yield chunk
                while True:
                    async with _within(call, limit):
                        try:
                            chunk = await anext(chunks)
                        except StopAsyncIteration:
                            return
                    yield chunk
            finally:
                await chunks.aclose()

    async def check(self, card: ExpertCard) -> Candidate:
        """One real, tiny call. Raises what a request would get."""
        timeout_s = min(card.timeout_s, self._limits.check_timeout_s)
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
        """Start the backends of *cards* and load those experts that run in this process, so that no first call waits for it.

        Raises ``ExpertUnreachable`` at the first that cannot be loaded.
        """
        for card in cards:
            worker = await self._worker(card.backend)
            if isinstance(worker, Warmable):
                await worker.warm(card)

    @asynccontextmanager
    async def _place(self, call: ExpertCall) -> AsyncIterator[_Limit]:
        """A place for *call*, and the time it has from here on: the card's limit is for running, not for waiting."""
        card = call.expert
        if call.deadline.expired:
            msg = f"no time was left to call expert {card.id!r}"
            raise ExpertTimeout(msg, expert_at_fault=False)
        async with self._places.place(card.id, limit=card.max_in_flight, timeout_s=card.queue_timeout_s, deadline=call.deadline):
            own, left = card.timeout_s, call.deadline.remaining_s
            yield _Limit(
                Deadline.after(own, clock=self._clock) if own < left else call.deadline,
                said=f"within its {own:g} s" if own < left else "before the request's deadline",
                expert_at_fault=left >= own * self._limits.fair_share,
            )

    async def _worker(self, backend: Backend) -> Worker:
        if (running := self._workers.get(backend)) is not None:
            return running
        async with self._starting[backend]:
            if backend not in self._workers:
                worker = await asyncio.to_thread(self._backends[backend], self._settings)
                await worker.start()
                self._workers[backend] = worker
            return self._workers[backend]

    async def _opened(self, call: ExpertCall, limit: _Limit) -> tuple[AsyncGenerator[Chunk, None], list[Chunk]]:
        """A stream that has said its first token, and what it has said so far."""
        async with _within(call, limit):
            worker = await self._worker(call.expert.backend)
            async for attempt in attempts(self._limits, limit.deadline, call.expert.id):
                with attempt:
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
        raise AssertionError("the attempts end with a stream or an error")  # pragma: no cover


def _says_something(chunk: Chunk) -> bool:
    """Whether it holds more than the role that servers open with, so that nothing can be taken back any more."""
    return any(
        choice.finish_reason is not None or any(value for key, value in choice.delta.items() if key != "role") for choice in chunk.choices
    )


@asynccontextmanager
async def _within(call: ExpertCall, limit: _Limit) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit.deadline.remaining_s):
            yield
    except TimeoutError as error:
        msg = f"expert {call.expert.id!r} did not finish {limit.said}"
        raise ExpertTimeout(msg, expert_at_fault=limit.expert_at_fault) from error
