"""The answer as it is produced: real tokens of the last step, and signs of life before them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from domain.chat import Choice, ChoiceDelta, Chunk, Usage, text_of
from domain.errors import ExpertError, ExpertTimeout
from domain.plan import CallRole, Candidate, ExpertCall, ExpertFailure, Outcome
from domain.routing import RoutingDecision
from domain.trace import Trace
from orchestrator.aggregation.base import Chosen, Synthesis
from orchestrator.aggregation.fallback import instead_of, says_something
from orchestrator.answer import Progress
from orchestrator.dispatch import candidates_of, dispatch, failures_of
from orchestrator.failures import error_for
from orchestrator.guard import failure_of
from orchestrator.limits import Limits
from orchestrator.planner import aggregator_call
from orchestrator.ports import Workers
from orchestrator.preparation import Prepared, settle, stand_in, why_single
from orchestrator.recorder import TraceRecorder

KEEP_ALIVE_S = 4.5
"""Longest silence on a stream while experts work, before the first token and between tokens: the promised five seconds with some
room to send, and under the idle limits of common proxies (30 to 60 s)."""
_MAX_HELD = 256
"""Chunks held back of an aggregator that has said nothing: its choices' last ones and its usage."""

Event = Chunk | Progress


class _NoAnswer(Exception):
    """Every expert that was asked has failed; carries the failures out to where somebody else is asked, or the request fails."""

    def __init__(self, failures: Sequence[ExpertFailure]) -> None:
        super().__init__("no expert answered")
        self.failures = failures


class _Interrupted(Exception):
    """An expert failed in the middle of its stream; carries the failure out to where it is translated."""

    def __init__(self, failure: ExpertFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class AnswerStream:
    """An opened stream. Iterate it to the end or ``aclose()`` it; either way the trace is complete afterwards."""

    def __init__(self, prepared: Prepared, recorder: TraceRecorder, *, limits: Limits) -> None:
        self._recorder, self._limits = recorder, limits
        self._events: AsyncGenerator[Chunk, None] | None = None
        self._next: asyncio.Future[Chunk | None] | None = None  # None when there is no further chunk
        self._progress: deque[str] = deque(maxlen=64)
        self._stirred: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # done when there is progress to tell
        self.request_id = prepared.request.id
        self.strategy = recorder.strategy
        self.instead(prepared)

    def instead(self, prepared: Prepared) -> None:
        """*prepared* is carried out from now on."""
        self._prepared = prepared
        self.announced_aggregator = prepared.announced_aggregator
        num_router_calls = prepared.context.decision.num_calls
        self.num_planned_calls = num_router_calls + len(prepared.plan.calls) + (":" in self.announced_aggregator)

    @property
    def decision(self) -> RoutingDecision:
        return self._prepared.context.decision

    @property
    def trace(self) -> Trace:
        """The finished trace. Raises ``RuntimeError`` while the stream still runs."""
        if self._recorder.trace is None:
            raise RuntimeError("the stream has not ended; iterate it to the end or close it first")
        return self._recorder.trace

    @property
    def route_ms(self) -> float:
        return self._recorder.stage_ms("route")

    @property
    def overhead_ms(self) -> float:
        """Our own milliseconds so far."""
        return self._recorder.overhead_ms()

    def start(self, events: AsyncGenerator[Chunk, None]) -> None:
        self._events = events
        self._next = asyncio.ensure_future(anext(events, None))

    def progress(self, text: str) -> None:
        """Say that something happened before tokens can flow."""
        self._progress.append(text)
        if not self._stirred.done():
            self._stirred.set_result(None)

    async def hold_for_first_event(self) -> None:
        """Wait for the first token, but only so long that headers are not held back. Raises what failed until then."""
        if self._next is None:
            raise RuntimeError("start() comes first")
        alone = len(self._prepared.plan.calls) == 1
        try:
            await asyncio.wait({self._next}, timeout=self._limits.hold_first_token_s if alone else self._limits.hold_headers_s)
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if self._next.done():
            self._next.result()  # raises what failed

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._events is None:
            raise StopAsyncIteration
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._events, None))
        while not self._next.done():
            if self._progress:
                return Progress(self._progress.popleft())
            if self._stirred.done():
                self._stirred = asyncio.get_running_loop().create_future()
            # No task is made for the wait: this is done for every token.
            waited: list[asyncio.Future[Any]] = [self._next, self._stirred]
            await asyncio.wait(waited, timeout=KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
            if not self._next.done() and not self._progress:
                return Progress("working")
        chunk = self._next.result()
        self._next = None
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Cancel what still runs. Safe to call twice and after the end."""
        pending, events = self._next, self._events
        self._next = self._events = None
        try:
            if pending is not None and not pending.done():
                pending.cancel()
                await asyncio.wait({pending}, timeout=self._limits.close_grace_s)
            if pending is not None and pending.done() and not pending.cancelled():
                pending.exception()  # retrieved, so that nobody is warned about it
            if events is not None and (pending is None or pending.done()):
                await events.aclose()
        finally:
            self._recorder.finish(asyncio.CancelledError())


async def stream_events(
    prepared: Prepared,
    recorder: TraceRecorder,
    workers: Workers,
    *,
    on_progress: Callable[[str], None],
    on_stand_in: Callable[[Prepared], None],
) -> AsyncGenerator[Chunk, None]:
    """The chunks of the answer's last step; raises the request's error. Finishes the trace in every case."""
    try:
        async with aclosing(_last_step(prepared, recorder, workers, on_progress, on_stand_in)) as chunks:
            async for chunk in chunks:
                recorder.wrote("".join(str(choice.delta.get("content") or "") for choice in chunk.choices))
                with recorder.timing("reader"):
                    yield chunk
    except GeneratorExit:
        recorder.finish(asyncio.CancelledError())
        raise
    except BaseException as error:
        recorder.finish(error)
        raise
    recorder.finish()


async def _last_step(
    prepared: Prepared,
    recorder: TraceRecorder,
    workers: Workers,
    on_progress: Callable[[str], None],
    on_stand_in: Callable[[Prepared], None],
) -> AsyncGenerator[Chunk, None]:
    """The only expert's stream, or the panel's; where nobody could be called, a stand-in's, which *on_stand_in* is told."""
    failures: list[ExpertFailure] = []
    while True:
        calls = [replace(call, on_progress=on_progress) for call in prepared.plan.calls]
        step = (
            _single(prepared, calls[0], recorder, workers) if len(calls) == 1 else _panel(prepared, calls, recorder, workers, on_progress)
        )
        try:
            async with aclosing(step) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        except _NoAnswer as nobody:
            failures += nobody.failures
        instead = stand_in(prepared, failures)
        if instead is None:
            raise error_for(failures, prepared.plan.deadline)
        prepared, recorder.decision = instead, instead.context.decision
        on_stand_in(prepared)


async def _single(prepared: Prepared, call: ExpertCall, recorder: TraceRecorder, workers: Workers) -> AsyncGenerator[Chunk, None]:
    recorder.aggregated("single", why_single(len(prepared.plan.calls)))
    try:
        async with aclosing(_relay(call, "experts", recorder, workers)) as chunks:
            async for chunk in chunks:
                yield chunk
    except _Interrupted as interrupted:
        raise _NoAnswer([interrupted.failure]) from None


async def _panel(
    prepared: Prepared,
    calls: Sequence[ExpertCall],
    recorder: TraceRecorder,
    workers: Workers,
    on_progress: Callable[[str], None],
) -> AsyncGenerator[Chunk, None]:
    def ended(outcome: Outcome) -> None:
        recorder.call(outcome, CallRole.CANDIDATE)
        on_progress(f"{outcome.expert_id} {'answered' if isinstance(outcome, Candidate) else 'failed'}")

    with recorder.timing("experts"):
        outcomes = await dispatch(calls, workers, on_outcome=ended, on_cancelled=recorder.cancelled)
    candidates = candidates_of(outcomes)
    if not candidates:
        raise _NoAnswer(failures_of(outcomes))
    match settle(prepared, candidates):
        case None:
            recorder.aggregated("single", why_single(len(prepared.plan.calls)))
            yield _whole(candidates[0])
        case Chosen(candidate=chosen, why=why, by=name):
            recorder.aggregated(name, why)
            yield _whole(chosen)
        case Synthesis(expert=expert, messages=messages, why=why):
            recorder.aggregated(f"{prepared.aggregator.name}:{expert.id}", why)
            call = replace(aggregator_call(prepared.request, expert, messages, prepared.plan.deadline), on_progress=on_progress)
            outcome: Outcome = Candidate(expert.id, ())
            held: deque[Chunk] = deque(maxlen=_MAX_HELD)
            has_begun = False
            try:
                async with aclosing(_relay(call, "aggregate", recorder, workers)) as chunks:
                    async for chunk in chunks:
                        has_begun = has_begun or any(says_something(choice.delta) for choice in chunk.choices)
                        held.append(chunk)
                        while held and (has_begun or not _ends(held[0])):
                            yield held.popleft()
            except _Interrupted as interrupted:
                if has_begun:
                    raise error_for([interrupted.failure], prepared.plan.deadline) from None
                outcome = interrupted.failure
            if not has_begun:  # nothing was answered and its end is held back, so another answer can take its place
                chosen, why = instead_of(outcome, candidates)
                recorder.fell_back(why)
                yield _whole(chosen)


async def _relay(call: ExpertCall, stage: str, recorder: TraceRecorder, workers: Workers) -> AsyncGenerator[Chunk, None]:
    """Pass one expert's stream on, and keep its record. Raises ``_Interrupted`` when the expert fails."""
    began, usage, text = time.perf_counter(), Usage(), ""
    outcome: Outcome | None = None
    source = workers.stream(call)
    try:
        while True:
            try:
                with recorder.timing(stage):
                    async with asyncio.timeout(call.deadline.remaining_s + 1.0):
                        chunk = await anext(source)
            except StopAsyncIteration:
                break
            except TimeoutError:
                raise ExpertTimeout("no further token before the request's deadline") from None
            usage = chunk.usage or usage
            text += "".join(str(choice.delta.get("content") or "") for choice in chunk.choices)
            yield chunk
        outcome = Candidate(call.expert.id, (_choice(text),), usage, time.perf_counter() - began)
    except ExpertError as error:
        outcome = failure_of(call, error, time.perf_counter() - began)
        raise _Interrupted(outcome) from error
    finally:
        if outcome is None:
            recorder.cancelled(call, time.perf_counter() - began)
        else:
            recorder.call(outcome, call.role)
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


def _ends(chunk: Chunk) -> bool:
    """Whether a choice ends with *chunk*, or all have ended before."""
    return not chunk.choices or any(choice.finish_reason is not None for choice in chunk.choices)


def _choice(text: str) -> Choice:
    return Choice({"role": "assistant", "content": text})


def _whole(candidate: Candidate) -> Chunk:
    """A finished candidate as one chunk. Its usage is counted where its call was recorded, not again here."""
    deltas = []
    for choice in candidate.choices:
        delta = {name: value for name, value in choice.message.items() if value is not None}
        if tool_calls := choice.message.get("tool_calls"):
            delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(tool_calls)]
        delta.setdefault("content", text_of(choice.message))
        deltas.append(ChoiceDelta(delta, choice.index, choice.finish_reason, choice.logprobs, choice.extra))
    return Chunk(tuple(deltas), extra=candidate.extra)
