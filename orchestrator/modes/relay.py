"""One expert's stream passed on, and a finished answer as a stream."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from domain.chat import Choice, ChoiceDelta, Chunk, Usage, text_of
from domain.errors import ExpertError, ExpertTimeout
from domain.patience import Patience
from domain.plan import Candidate, ExpertCall, Outcome
from orchestrator.aggregation.fallback import ANSWER_FIELDS, says_something
from orchestrator.guard import failure_of
from orchestrator.ports import Workers
from orchestrator.recorder import TraceRecorder


class Relay:
    """Iterate ``chunks``; afterwards ``outcomes`` is what the expert came to, of ``calls``, its one call. A failure is an outcome, never
    raised."""

    def __init__(self, call: ExpertCall, recorder: TraceRecorder, workers: Workers, *, wait: str, stage: int | None = None) -> None:
        self._call, self._recorder, self._workers, self._wait, self._stage = call, recorder, workers, wait, stage
        self._texts: list[str] = []
        self._fields: dict[str, Any] = {}
        self.has_begun = False
        """Whether it has said anything that a caller can take for an answer."""
        self.calls = [call]
        self.outcomes: list[Outcome] = []

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        call, recorder, wait = self._call, self._recorder, self._wait
        began, usage, spoken = time.perf_counter(), Usage(), list[str]()
        first_token_s: float | None = None
        outcome: Outcome | None = None
        source, patience = self._workers.stream(call), Patience()
        try:
            while True:
                try:
                    with recorder.timing(wait), patience.for_(call.deadline.remaining_s + 1.0):
                        chunk = await anext(source)
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    raise ExpertTimeout("no further token before the request's deadline") from None
                usage = chunk.usage or usage
                if text := text_in(chunk):
                    spoken.append(text)
                if not self.has_begun:
                    self._listen(chunk)
                    if self.has_begun:
                        first_token_s = time.perf_counter() - began
                yield chunk
            outcome = Candidate(call.expert.id, (_choice("".join(spoken), self._fields),), usage, time.perf_counter() - began)
        except ExpertError as error:
            outcome = failure_of(call, error, time.perf_counter() - began)
        finally:
            patience.close()
            if outcome is None:
                recorder.cancelled(call, time.perf_counter() - began)
            else:
                self.outcomes.append(outcome)
                recorder.call(outcome, call.role, stage=self._stage, made=call, first_token_s=first_token_s)
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

    def _listen(self, chunk: Chunk) -> None:
        for choice in chunk.choices:
            if says_something(choice.delta):
                self.has_begun = True
                self._fields |= {field: choice.delta[field] for field in ANSWER_FIELDS if choice.delta.get(field)}


def _choice(text: str, fields: Mapping[str, Any]) -> Choice:
    return Choice({"role": "assistant", "content": text, **fields})


def text_in(chunk: Chunk) -> str:
    """What all choices of *chunk* say."""
    if len(chunk.choices) == 1:
        return str(chunk.choices[0].delta.get("content") or "")
    return "".join(str(choice.delta.get("content") or "") for choice in chunk.choices)


def ends(chunk: Chunk) -> bool:
    """Whether a choice ends with *chunk*, or all have ended before."""
    return not chunk.choices or any(choice.finish_reason is not None for choice in chunk.choices)


def whole(candidate: Candidate) -> Chunk:
    """A finished candidate as one chunk. Its usage is counted where its call was recorded, not again here."""
    deltas = []
    for choice in candidate.choices:
        delta = {name: value for name, value in choice.message.items() if value is not None}
        if tool_calls := choice.message.get("tool_calls"):
            delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(tool_calls)]
        delta.setdefault("content", text_of(choice.message))
        deltas.append(ChoiceDelta(delta, choice.index, choice.finish_reason, choice.logprobs, choice.extra))
    return Chunk(tuple(deltas), extra=candidate.extra)
