"""A ``Workers`` port that follows a script: strict about who may be called, and able to fail, stall and stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from domain.chat import Choice, ChoiceDelta, Chunk, Usage
from domain.errors import ExpertError, ExpertUnreachable
from domain.plan import Candidate, ExpertCall

_USAGE = Usage(prompt_tokens=3, completion_tokens=5)


class AnswersInTurn:
    """A worker that any expert's calls reach, with one answer for each in turn: a text, None for an expert that cannot be reached, "hang"
    for one that never answers. ``calls`` are those that came."""

    def __init__(self, answers: Sequence[str | None], *, latency_s: float = 0.0) -> None:
        self._answers, self._latency_s = iter(answers), latency_s
        self.calls: list[ExpertCall] = []

    async def complete(self, call: ExpertCall) -> Candidate:
        self.calls.append(call)
        answer = next(self._answers)
        if answer is None:
            raise ExpertUnreachable("connection refused")
        if answer == "hang":
            await asyncio.Event().wait()
        return Candidate(call.expert.id, (Choice({"role": "assistant", "content": answer}),), latency_s=self._latency_s)


@dataclass(frozen=True, slots=True)
class Says:
    """The expert answers *text*. Streamed, it comes as *pieces*, or word by word when there are none."""

    text: str
    pieces: tuple[str, ...] = ()
    reasoning: str | None = None
    usage: Usage = _USAGE
    finish_reason: str = "stop"
    message: Mapping[str, Any] = field(default_factory=dict)
    """More keys of the assistant message, e.g. ``tool_calls``."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More keys of the choice, e.g. ``stop_reason``; streamed, they come with the finish reason."""


@dataclass(frozen=True, slots=True)
class Fails:
    """The expert raises *error*; streamed, only after *pieces* have been sent."""

    error: ExpertError
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stalls:
    """The expert sends *pieces* (streamed), then waits for ``ScriptedWorkers.release``, then does as *then* says.

    Without a release it waits until it is cancelled: the caller's own deadline has to end it.
    """

    then: Says | Fails = Says("late")
    pieces: tuple[str, ...] = ()


Reply = Says | Fails | Stalls
Step = str | Reply | Callable[[ExpertCall], "str | Reply"]
"""A plain string is ``Says(string)``; a callable chooses by the call that came in."""


class ScriptedWorkers:
    """Answers each expert's calls as its script says.

    ``ScriptedWorkers({"a": "42", "b": [Fails(ExpertTimeout("slow")), "43"]})``: one step serves every call of that
    expert; a list serves one call per step, and one call more is an error. A call to an expert that the script does not
    name raises ``AssertionError``, which no code under test may swallow; ``unexpected`` keeps the ids all the same.
    """

    def __init__(self, script: Mapping[str, Step | Sequence[Step]]) -> None:
        self.calls: list[ExpertCall] = []
        """Every call, in the order of arrival, streamed ones too."""
        self.streamed: list[str] = []
        """Ids of the experts that were asked to stream."""
        self.finished: list[str] = []
        """Ids of the experts that answered or failed as scripted."""
        self.cancelled: list[str] = []
        """Ids of the experts whose call was cancelled or whose stream was closed early."""
        self.unexpected: list[str] = []
        self.in_flight: dict[str, int] = {}
        self.max_in_flight: dict[str, int] = {}
        """The most calls at once that each expert ever had."""
        self._repeated: dict[str, Step] = {}
        self._series: dict[str, list[Step]] = {}
        for expert_id, step in script.items():
            if isinstance(step, Sequence) and not isinstance(step, str):
                self._series[expert_id] = list(step)
            else:
                self._repeated[expert_id] = step
        self._gates: dict[str, asyncio.Event] = {}
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    # --- what tests ask and do ----------------------------------------------------------------------------------

    def called(self) -> list[str]:
        """Expert ids in the order in which they were called."""
        return [call.expert.id for call in self.calls]

    def calls_to(self, expert_id: str) -> list[ExpertCall]:
        return [call for call in self.calls if call.expert.id == expert_id]

    def release(self, expert_id: str) -> None:
        """Let every stalled call of *expert_id*, present and future, go on."""
        self._gate(expert_id).set()

    async def until_started(self, expert_id: str, num_calls: int = 1) -> None:
        """Wait until *expert_id* has been called *num_calls* times (at most 5 s)."""
        await self._until(lambda: len(self.calls_to(expert_id)) >= num_calls)

    async def until_idle(self) -> None:
        """Wait until no call is running (at most 5 s)."""
        await self._until(lambda: not any(self.in_flight.values()))

    # --- the port -----------------------------------------------------------------------------------------------

    async def complete(self, call: ExpertCall) -> Candidate:
        reply = self._take(call)
        with self._flight(call.expert.id):
            if isinstance(reply, Stalls):
                await self._gate(call.expert.id).wait()
                reply = reply.then
            else:
                await asyncio.sleep(0)  # a real call gives the loop a turn; races between experts show up here too
            if isinstance(reply, Fails):
                raise reply.error
            message: dict[str, Any] = {"role": "assistant", "content": reply.text, **reply.message}
            if reply.reasoning is not None:
                message["reasoning_content"] = reply.reasoning
            return Candidate(call.expert.id, (_choice(message, reply),), usage=reply.usage, latency_s=0.001)

    async def stream(self, call: ExpertCall) -> AsyncIterator[Chunk]:
        reply = self._take(call)
        self.streamed.append(call.expert.id)
        with self._flight(call.expert.id):
            if isinstance(reply, Stalls):
                for piece in reply.pieces:
                    yield _chunk({"content": piece})
                await self._gate(call.expert.id).wait()
                reply = reply.then
            if isinstance(reply, Fails):
                for piece in reply.pieces:
                    yield _chunk({"content": piece})
                raise reply.error
            if reply.reasoning is not None:
                yield _chunk({"reasoning_content": reply.reasoning})
            if reply.message:
                yield _chunk(dict(reply.message))
            for piece in reply.pieces or _words(reply.text):
                yield _chunk({"content": piece})
                await asyncio.sleep(0)
            yield Chunk((ChoiceDelta({}, finish_reason=reply.finish_reason, extra=reply.extra),))
            yield Chunk(usage=reply.usage)

    # --- inside -------------------------------------------------------------------------------------------------

    def _take(self, call: ExpertCall) -> Reply:
        expert_id = call.expert.id
        self.calls.append(call)
        if expert_id in self._repeated:
            step = self._repeated[expert_id]
        elif self._series.get(expert_id):
            step = self._series[expert_id].pop(0)
        else:
            self.unexpected.append(expert_id)
            known = (
                f"its script of {len(self.calls_to(expert_id)) - 1} steps is used up" if expert_id in self._series else "no script names it"
            )
            raise AssertionError(f"unexpected call to {expert_id!r}: {known}")
        reply = step(call) if callable(step) else step
        return Says(reply) if isinstance(reply, str) else reply

    def _gate(self, expert_id: str) -> asyncio.Event:
        return self._gates.setdefault(expert_id, asyncio.Event())

    @contextmanager
    def _flight(self, expert_id: str) -> Iterator[None]:
        """Count one call in and out, whichever way it ends."""
        now = self.in_flight.get(expert_id, 0) + 1
        self.in_flight[expert_id] = now
        self.max_in_flight[expert_id] = max(now, self.max_in_flight.get(expert_id, 0))
        self._tell()
        ended = self.finished
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            ended = self.cancelled
            raise
        finally:
            self.in_flight[expert_id] -= 1
            ended.append(expert_id)
            self._tell()

    def _tell(self) -> None:
        for reached, waiter in self._waiters:
            if not waiter.done() and reached():
                waiter.set_result(None)

    async def _until(self, reached: Callable[[], bool]) -> None:
        if reached():
            return
        entry = (reached, asyncio.get_running_loop().create_future())
        self._waiters.append(entry)
        try:
            await asyncio.wait_for(entry[1], timeout=5)
        finally:
            self._waiters.remove(entry)


def _choice(message: Mapping[str, Any], reply: Says) -> Choice:
    return Choice(message, finish_reason=reply.finish_reason, extra=reply.extra)


def _chunk(delta: Mapping[str, Any]) -> Chunk:
    return Chunk((ChoiceDelta(delta),))


def _words(text: str) -> list[str]:
    """*text* cut after each space, so that the pieces join to it again."""
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + words[-1:]
