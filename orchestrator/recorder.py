"""Collects what happens to one request, and hands the finished trace to every sink, once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from domain.chat import ChatRequest, Message, Usage, text_of
from domain.errors import ConsiliumError
from domain.plan import CallRole, Candidate, ExpertCall, ExpertFailure, Outcome
from domain.quoting import shortened
from domain.routing import RoutingDecision
from domain.trace import CallRecord, Timings, Trace
from orchestrator.ports import TraceSink

MAX_KEPT_TEXT = 20_000
"""Letters of one answer that a trace keeps."""
MAX_KEPT_ERROR = 1_000
"""Letters of one error: what failed is said in the first of them, the rest is what a caller or a server has sent."""


class TraceRecorder:
    """Mutable while the request runs. All durations in milliseconds of ``perf_counter``."""

    def __init__(self, request: ChatRequest, sinks: Sequence[TraceSink], *, keep_text: bool) -> None:
        self._request, self._sinks, self._keep_text = request, sinks, keep_text
        self._began, self._started_at = time.perf_counter(), time.time()
        self._spent = {"route": 0.0, "experts": 0.0, "aggregate": 0.0, "reader": 0.0}
        self._annotator_ms = 0.0
        self._open_since: float | None = None
        self._first_token: float | None = None
        self._calls: list[CallRecord] = []
        self._text: list[str] = []
        self._text_length = 0
        self.strategy: str | None = None
        self.decision: RoutingDecision | None = None
        self._aggregator: str | None = None
        self._aggregator_reason: str | None = None
        self.trace: Trace | None = None

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Add the block's duration to *stage*: ``route``, ``experts`` (waiting for candidates), ``aggregate``, or ``reader``
        (waiting until the client has taken what was sent)."""
        began = self._open_since = time.perf_counter()
        try:
            yield
        finally:
            self._spent[stage] += (time.perf_counter() - began) * 1e3
            self._open_since = None

    def took(self, stage: str, seconds: float) -> None:
        """*stage* has taken so long before this recorder was made: of a batch's line, whose calls come in turns."""
        self._spent[stage] += seconds * 1e3
        self._began -= seconds
        self._started_at -= seconds

    def stage_ms(self, stage: str) -> float:
        """Milliseconds spent in *stage* so far."""
        return self._spent[stage]

    def overhead_ms(self, now: float | None = None) -> float:
        """Milliseconds up to *now* (``perf_counter``) that were not spent waiting for experts or the reader."""
        now = self._open_since or time.perf_counter() if now is None else now  # a wait that goes on is not ours
        waited = self._spent["experts"] + self._spent["aggregate"] + self._spent["reader"] + self._annotator_ms
        return max(0.0, (now - self._began) * 1e3 - waited)

    def call(self, outcome: Outcome, role: CallRole) -> None:
        """A call has ended."""
        match outcome:
            case Candidate():
                text = outcome.text[:MAX_KEPT_TEXT] if self._keep_text else None
                self._calls.append(CallRecord(outcome.expert_id, role, "ok", outcome.latency_s * 1e3, outcome.usage, text=text))
            case ExpertFailure():
                error, status = shortened(f"{outcome.code}: {outcome.message}", MAX_KEPT_ERROR), "error" if outcome.called else "skipped"
                self._calls.append(CallRecord(outcome.expert_id, role, status, outcome.latency_s * 1e3, error=error))

    def routed(self, outcomes: Sequence[Outcome]) -> None:
        """The router made these calls, at once; the wait for them is the experts', not ours."""
        for outcome in outcomes:
            self.call(outcome, CallRole.ANNOTATOR)
        self._annotator_ms = max((outcome.latency_s * 1e3 for outcome in outcomes), default=0.0)

    def cancelled(self, call: ExpertCall, latency_s: float) -> None:
        """A call was given up because nobody waits for it any more."""
        self._calls.append(CallRecord(call.expert.id, call.role, "cancelled", latency_s * 1e3))

    def aggregated(self, how: str, why: str) -> None:
        """The answer is made so: ``single``, the aggregator's name, or that with its expert (``fuse:a``)."""
        self._aggregator, self._aggregator_reason = how, shortened(why, MAX_KEPT_ERROR)

    def fell_back(self, why: str) -> None:
        """What ``aggregated`` said came to nothing."""
        self.aggregated(f"{self._aggregator} (fallback)", f"{self._aggregator_reason}; {why}")

    def wrote(self, text: str) -> None:
        """A piece of the answer went out."""
        if self._first_token is None and text:
            self._first_token = (time.perf_counter() - self._began) * 1e3
        if self._keep_text and self._text_length < MAX_KEPT_TEXT:
            self._text.append(text)
            self._text_length += len(text)

    @property
    def usage(self) -> Usage:
        return sum((call.usage for call in self._calls), Usage())

    def finish(self, error: BaseException | None = None) -> Trace:
        """The finished trace; emitted on the first call, the same one returned on later calls."""
        if self.trace is not None:
            return self.trace
        now = time.perf_counter()
        total, overhead = (now - self._began) * 1e3, self.overhead_ms(now)
        spent = {stage: self._spent[stage] for stage in ("route", "experts", "aggregate")}
        expected = isinstance(error, ConsiliumError)
        self.trace = Trace(
            request_id=self._request.id,
            model=self._request.model,
            strategy=self.strategy,
            started_at=self._started_at,
            status="ok" if error is None else "error" if isinstance(error, Exception) else "cancelled",
            decision=self.decision,
            calls=tuple(self._calls),
            aggregator=self._aggregator,
            aggregator_reason=self._aggregator_reason,
            timings=Timings(**spent, total=total, overhead=overhead, first_token=self._first_token),
            usage=self.usage,
            error_code=error.code if isinstance(error, ConsiliumError) else "internal_error" if isinstance(error, Exception) else None,
            error_message=shortened(str(error), MAX_KEPT_ERROR) if expected else type(error).__name__ if error is not None else None,
            stream=self._request.stream,
            session_id=self._request.session_id,
            messages=_shortened(self._request.messages) if self._keep_text else None,
            answer="".join(self._text)[:MAX_KEPT_TEXT] if self._keep_text else None,
        )
        for sink in self._sinks:
            sink.emit(self.trace)
        return self.trace


def _shortened(messages: Sequence[Message]) -> tuple[Message, ...]:
    """*messages* with at most ``MAX_KEPT_TEXT`` letters in all, counted from the last one back; parts that are not text
    (images, audio) are dropped."""
    kept: list[Message] = []
    left = MAX_KEPT_TEXT
    for message in reversed(messages):
        if left <= 0:
            break
        text = text_of(message)
        left -= len(text)
        kept.append({"role": message.get("role"), "content": text if left >= 0 else text[: len(text) + left] + "…"})
    return tuple(reversed(kept))
