"""Collects what happens to one request, and hands the finished trace to every sink, once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from domain.chat import ChatRequest, Message, Usage, text_of
from domain.errors import ConsiliumError
from domain.plan import CallRole, ExpertCall, ExpertFailure, Outcome
from domain.quoting import shortened
from domain.routing import RoutingDecision
from domain.trace import CallRecord, Timings, Trace
from domain.trace_context import TraceContext
from orchestrator.ports import TraceSink

MAX_KEPT_TEXT = 20_000
"""Letters of one answer that a trace keeps."""
MAX_KEPT_ERROR = 1_000
"""Letters of one error: what failed is said in the first of them, the rest is what a caller or a server has sent."""
_NO_USAGE = Usage()


class _Timing:
    """A class, not a generator: it is entered for every stage, and this takes a third of the time."""

    __slots__ = ("_began", "_recorder", "_stage")

    def __init__(self, recorder: TraceRecorder, stage: str) -> None:
        self._recorder, self._stage, self._began = recorder, stage, 0.0

    def __enter__(self) -> None:
        self._began = self._recorder.begins()

    def __exit__(self, *_: object) -> None:
        self._recorder.ends(self._stage, self._began)


class TraceRecorder:
    """Mutable while the request runs. All durations in milliseconds of ``perf_counter``."""

    def __init__(self, request: ChatRequest, sinks: Sequence[TraceSink], *, keep_text: bool) -> None:
        self._request, self._sinks, self._keep_text = request, sinks, keep_text
        self._began, self._started_at = time.perf_counter(), time.time()
        self._spent = {"route": 0.0, "experts": 0.0, "aggregate": 0.0, "reader": 0.0}
        self._annotator_ms = 0.0
        self._open_since: float | None = None
        self._num_open = 0
        self._first_token: float | None = None
        self._routed_ms: float | None = None
        self._calls: list[CallRecord] = []
        self._text: list[str] = []
        self._text_length = 0
        self.strategy: str | None = None
        self.decision: RoutingDecision | None = None
        self._aggregator: str | None = None
        self._aggregator_reason: str | None = None
        self._is_own: bool | None = None
        self.answered_by: str | None = None
        """Whose words the answer is."""
        self.panel_changed_answer: bool | None = None
        """As the trace has it."""
        self.sequential_tokens = 0
        """Of answers that were waited for one after the other."""
        self.trace: Trace | None = None

    def timing(self, stage: str) -> _Timing:
        """Add the duration of a ``with`` block to *stage*: ``route``, ``experts`` (waiting for candidates), ``aggregate``, or
        ``reader`` (waiting until the client has taken what was sent)."""
        return _Timing(self, stage)

    def begins(self) -> float:
        """A stage begins now."""
        now = time.perf_counter()
        if not self._num_open:
            self._open_since = now
        self._num_open += 1
        return now

    def ends(self, stage: str, began: float) -> None:
        """The *stage* that *began* then ends now. Of waits at the same time, the time counts once: from the first one's beginning to the
        last one's end."""
        self._num_open = max(0, self._num_open - 1)
        if self._num_open:
            return
        since, now = began if self._open_since is None else min(began, self._open_since), time.perf_counter()
        self._spent[stage] += (now - since) * 1e3
        if stage == "route":
            self._routed_ms = (now - self._began) * 1e3
        self._open_since = None

    @property
    def open_s(self) -> float:
        """Seconds since the stage began that goes on now."""
        return 0.0 if self._open_since is None else time.perf_counter() - self._open_since

    def took(self, stage: str, seconds: float) -> None:
        """*stage* has taken so long before this recorder was made: of a batch's line, whose calls come in turns. To be told before the
        stage's calls are, which end now."""
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

    def spanned(self, call: ExpertCall) -> ExpertCall:
        """*call* with a span of its own below the request's; as it is where spans are not exported."""
        context = self._request.context
        return call if context is None else replace(call, context=context.child())

    def call(
        self,
        outcome: Outcome,
        role: CallRole,
        *,
        stage: int | None = None,
        made: ExpertCall | None = None,
        span: TraceContext | None = None,
        first_token_s: float | None = None,
    ) -> None:
        """A call has ended just now; of a mode of several stages, one of that *stage*. *made* is the call, where there was one; *span* its
        span, where the call itself is gone; *first_token_s*, of a stream, the seconds to its first token."""
        milliseconds = outcome.latency_s * 1e3
        status, usage, error, text = "ok", _NO_USAGE, None, None
        if isinstance(outcome, ExpertFailure):
            error, status = shortened(f"{outcome.code}: {outcome.message}", MAX_KEPT_ERROR), "error" if outcome.called else "skipped"
        else:
            usage, text = outcome.usage, outcome.text[:MAX_KEPT_TEXT] if self._keep_text else None
        self._calls.append(
            CallRecord(
                outcome.expert_id,
                role,
                status,
                milliseconds,
                usage,
                error,
                text,
                stage,
                started_ms=self._ms_before_now(milliseconds),
                first_token_ms=None if first_token_s is None else first_token_s * 1e3,
                span_id=_span_of(made) if span is None else span.span_id,
            )
        )

    def judged(self, stage: int, confidence: float | None, note: str) -> None:
        """What became of the *stage* of a mode; told with each answer of its experts."""
        note = shortened(note, MAX_KEPT_ERROR)
        for number, call in enumerate(self._calls):
            if call.stage == stage and call.role is not CallRole.JUDGE:
                self._calls[number] = replace(call, confidence=confidence, note=note)

    def routed(self, outcomes: Sequence[Outcome]) -> None:
        """The router made these calls, at once; the wait for them is the experts', not ours."""
        if not outcomes:
            return
        for outcome in outcomes:
            self.call(outcome, CallRole.ANNOTATOR)
        self._annotator_ms = max(outcome.latency_s * 1e3 for outcome in outcomes)
        began_ms = self._ms_before_now(self._annotator_ms)
        self._calls[-len(outcomes) :] = [replace(call, started_ms=began_ms) for call in self._calls[-len(outcomes) :]]

    def cancelled(self, call: ExpertCall, latency_s: float) -> None:
        """A call was given up because nobody waits for it any more."""
        milliseconds = latency_s * 1e3
        began_ms, span_id = self._ms_before_now(milliseconds), _span_of(call)
        self._calls.append(CallRecord(call.expert.id, call.role, "cancelled", milliseconds, started_ms=began_ms, span_id=span_id))

    def aggregated(self, how: str, why: str, *, is_own: bool = True) -> None:
        """The answer is made so: ``single``, the aggregator's name, or that with its expert (``fuse:a``). *is_own*: as ``Told`` has it."""
        self._is_own = is_own
        self._aggregator, self._aggregator_reason = how, shortened(why, MAX_KEPT_ERROR)

    def wrote(self, text: str) -> None:
        """A piece of the answer went out."""
        if self._first_token is None and text:
            self._first_token = (time.perf_counter() - self._began) * 1e3
        if self._keep_text and self._text_length < MAX_KEPT_TEXT:
            self._text.append(text)
            self._text_length += len(text)

    def _ms_before_now(self, milliseconds: float) -> float:
        """So many milliseconds ago, counted from the request's beginning, which nothing comes before."""
        return max(0.0, (time.perf_counter() - self._began) * 1e3 - milliseconds)

    @property
    def usage(self) -> Usage:
        told = [call.usage for call in self._calls]
        return told[0] if len(told) == 1 else sum(told, Usage())

    def finish(self, error: BaseException | None = None) -> Trace:
        """The finished trace; emitted on the first call, the same one returned on later calls."""
        if self.trace is not None:
            return self.trace
        now = time.perf_counter()
        total, overhead = (now - self._began) * 1e3, self.overhead_ms(now)
        spent = self._spent
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
            timings=Timings(spent["route"], spent["experts"], spent["aggregate"], total, overhead, self._first_token, self._routed_ms),
            usage=self.usage,
            error_code=error.code if isinstance(error, ConsiliumError) else "internal_error" if isinstance(error, Exception) else None,
            error_message=shortened(str(error), MAX_KEPT_ERROR) if expected else type(error).__name__ if error is not None else None,
            stream=self._request.stream,
            session_id=self._request.session_id,
            key_id=self._request.key_id,
            messages=_shortened(self._request.messages) if self._keep_text else None,
            answer="".join(self._text)[:MAX_KEPT_TEXT] if self._keep_text else None,
            answered_by=self.answered_by,
            panel_changed_answer=self.panel_changed_answer,
            is_own=self._is_own if error is None else None,
            sequential_tokens=self.sequential_tokens,
            context=self._request.context,
        )
        for sink in self._sinks:
            sink.emit(self.trace)
        if self._request.on_trace is not None:
            self._request.on_trace(self.trace)
        return self.trace


def _span_of(call: ExpertCall | None) -> str | None:
    return None if call is None or call.context is None else call.context.span_id


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
