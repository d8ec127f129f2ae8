"""Makes the calls that a mode asks for: whole, or with the last one streamed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from domain.chat import Chunk
from domain.errors import InvalidRequest
from domain.experts import ExpertCard
from domain.plan import Candidate, ExpertCall, ExpertFailure, Outcome
from orchestrator.dispatch import dispatch, failures_of, run_call
from orchestrator.failures import error_for
from orchestrator.hedging import Hedge, HedgedRelay, Second, raced
from orchestrator.modes.base import Ask, End, NextExpert, Nobody, Told, Write
from orchestrator.modes.play import Play
from orchestrator.modes.relay import Relay, ends, whole
from orchestrator.modes.single import SINGLE, Single
from orchestrator.ports import Workers
from orchestrator.preparation import Prepared
from orchestrator.recorder import TraceRecorder
from orchestrator.stand_ins import stand_in

_MAX_HELD = 256
"""Chunks held back of a last call that has said nothing: its choices' last ones and its usage."""

ChooseNext = Callable[[Prepared, NextExpert], Awaitable[ExpertCard | None]]
"""Routes on the way: the best of those that a mode has not asked yet."""


class Driver:
    """Mutable; one for each request. Either ``answer`` or ``chunks``, once."""

    def __init__(
        self,
        prepared: Prepared,
        recorder: TraceRecorder,
        workers: Workers,
        *,
        choose_next: ChooseNext,
        hedge: Hedge | None = None,
        on_progress: Callable[[str], None] | None = None,
        on_carried: Callable[[Prepared], None] | None = None,
    ) -> None:
        """*hedge*: what is done when the only call of *prepared* meets silence. *on_progress* hears what happens before the answer is
        there, *on_carried* what is carried out in place of *prepared*, where somebody else answers."""
        self._prepared, self._recorder, self._workers = prepared, recorder, prepared.view.workers(workers)
        self._choose_next, self._hedge, self._on_progress, self._on_carried = choose_next, hedge, on_progress, on_carried
        self._failures: list[ExpertFailure] = []
        self._called: list[ExpertCall] = []

    async def answer(self) -> Candidate:
        """The whole answer. Raises the request's error when every expert has failed."""
        while True:
            mode = self._prepared.mode
            end = await (self._alone(mode) if isinstance(mode, Single) else self._played(Play(mode)))
            if isinstance(end, Told):
                self._tell(end)
                return end.answer
            if end is not None:
                self._go_on_without(end)

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The answer as it is produced: the last call's words as they come, anything else as one chunk."""
        while True:
            prepared = self._prepared
            play, held = Play(prepared.mode), deque[Chunk](maxlen=_MAX_HELD)
            written: Outcome | None = None
            end: End | None = None
            while end is None:
                step = play.now
                if not isinstance(step, Write):
                    end = await self._ended_by(play)
                    continue
                calls = self._granted(step)
                if (end := self._cut_short(step, calls)) is not None:
                    continue
                call = calls[0]
                if isinstance(call, ExpertFailure):
                    self._refused(step, call)
                    play.go_on([call])
                    end = _end_of(play)
                    continue
                self._begins(step, call)
                relay, has_told = self._relay(step, call), False
                held.clear()
                async with aclosing(relay.chunks()) as chunks:
                    async for chunk in chunks:
                        if not step.holds_back or (relay.has_begun and not held):
                            has_told = True
                            yield chunk
                            continue
                        held.append(chunk)
                        while held and (relay.has_begun or not ends(held[0])):
                            has_told = has_told or relay.has_begun
                            yield held.popleft()
                self._prepared.ledger.ended(relay.calls, relay.outcomes)
                written = relay.outcomes[-1]
                if isinstance(written, ExpertFailure) and has_told:
                    raise error_for([*self._failures, written], self._prepared.deadline)
                if self._prepared is not prepared:  # the second call was heard
                    play = Play(self._prepared.mode)
                play.go_on(relay.outcomes)
                end = _end_of(play)
                if has_told:
                    self._tell_streamed(end, step, written)
                    return
            if isinstance(end, Told):
                self._tell(end)
                self._recorder.answered_by = end.answer.expert_id
                if end.answer is written:  # it has ended without a word, and nobody else has said one
                    for chunk in held:
                        yield chunk
                else:
                    yield whole(end.answer)
                return
            self._go_on_without(end)

    async def _alone(self, mode: Single) -> End:
        """What playing *mode* comes to, without all that only modes of several calls need: most requests are for one expert, and it is a
        fifth of what they take."""
        recorder, ledger = self._recorder, self._prepared.ledger
        (call,) = ledger.grant((mode.call,))
        if isinstance(call, ExpertFailure):
            self._require_called(call)
            recorder.call(call, mode.call.role)
            return Nobody((call,))
        recorder.aggregated(SINGLE, mode.why)
        if (hedge := self._take_hedge()) is not None:
            return await self._hedged(mode, call, hedge)
        call = self._heard(call)
        with recorder.timing("experts"):
            try:
                outcome = await run_call(call, self._workers)
            except asyncio.CancelledError:
                recorder.cancelled(call, recorder.open_s)
                raise
        recorder.call(outcome, call.role, made=call)
        ledger.ended((call,), (outcome,))
        return Nobody((outcome,)) if isinstance(outcome, ExpertFailure) else Told(outcome, SINGLE, mode.why)

    async def _hedged(self, mode: Single, call: ExpertCall, hedge: Hedge) -> End:
        """The same, with a second call where the expert is silent."""
        recorder = self._recorder

        def on_outcome(made: ExpertCall, outcome: Outcome) -> None:
            recorder.call(outcome, made.role, made=made)

        run = partial(dispatch, workers=self._workers, on_outcome=on_outcome, on_cancelled=recorder.cancelled)
        with recorder.timing("experts"):
            came = await raced(call, hedge, lambda made: run([self._heard(made)]))
        self._prepared.ledger.ended(came.calls, came.outcomes)
        if came.second is not None:
            self._carry_out(came.second.prepared)
        (outcome, *_) = came.outcomes
        why = mode.why if came.second is None else came.second.why
        return Told(outcome, SINGLE, why) if isinstance(outcome, Candidate) else Nobody(tuple(failures_of(came.outcomes)))

    async def _played(self, play: Play) -> End:
        """What *play* comes to."""
        while (end := await self._ended_by(play)) is None:
            pass
        return end

    async def _ended_by(self, play: Play) -> End | None:
        """Carry the next step of *play* out. The end, when it has come."""
        step = play.now
        if isinstance(step, NextExpert):
            play.go_on(await self._choose_next(self._prepared, step))
            return _end_of(play)
        if isinstance(step, Told | Nobody):
            return step
        granted = self._granted(step)
        if (end := self._cut_short(step, granted)) is not None:
            play.close()
            return end
        if isinstance(step, Write) and step.by is not None:
            self._recorder.aggregated(step.by, step.why)
        play.go_on(await self._outcomes(step, granted))
        return _end_of(play)

    def _granted(self, step: Ask | Write) -> Sequence[ExpertCall | ExpertFailure]:
        return self._prepared.ledger.grant(step.calls, num_to_come=step.num_to_come)

    def _cut_short(self, step: Ask | Write, granted: Sequence[ExpertCall | ExpertFailure]) -> Told | None:
        """The answer so far, where *step* cannot be carried out any more. Raises ``InvalidRequest`` where nothing could ever be."""
        if isinstance(granted[0], ExpertFailure):
            if step.so_far is not None:
                return step.so_far(f"{granted[0].message}, so {_names(step)} was not asked")
            self._require_called(granted[0])
        if step.so_far is not None and self._prepared.deadline.expired:
            return step.so_far(f"there was no time left for {_names(step)}")
        return None

    def _require_called(self, refused: ExpertFailure) -> None:
        """Raise ``InvalidRequest`` where the budget has no room for the first call of all."""
        if not self._called:
            raise InvalidRequest(f"{refused.message}, which is too little for a first call", param="consilium")

    async def _outcomes(self, step: Ask | Write, granted: Sequence[ExpertCall | ExpertFailure]) -> list[Outcome]:
        recorder = self._recorder
        calls = [self._heard(call) for call in granted if isinstance(call, ExpertCall)]
        refused = [failure for failure in granted if isinstance(failure, ExpertFailure)]

        def on_outcome(call: ExpertCall, outcome: Outcome) -> None:
            recorder.call(outcome, call.role, stage=step.stage, made=call)
            if self._on_progress is not None:
                self._on_progress(f"{outcome.expert_id} {'answered' if isinstance(outcome, Candidate) else 'failed'}")

        outcomes: list[Outcome] = []
        if calls:
            with recorder.timing(step.wait):
                outcomes = await dispatch(
                    calls, self._workers, on_outcome=on_outcome, on_cancelled=recorder.cancelled,
                    quorum=step.quorum, quorum_of=step.quorum_of,
                )  # fmt: skip
            self._prepared.ledger.ended(calls, outcomes)
        for failure in refused:
            self._refused(step, failure)
        return [*outcomes, *refused]

    def _refused(self, step: Ask | Write, failure: ExpertFailure) -> None:
        self._recorder.call(failure, step.calls[0].role, stage=step.stage)

    def _take_hedge(self) -> Hedge | None:
        """Of the first call alone."""
        hedge, self._hedge = self._hedge, None
        return hedge

    def _relay(self, step: Write, call: ExpertCall) -> Relay | HedgedRelay:
        def relay_of(made: ExpertCall) -> Relay:
            return Relay(self._heard(made), self._recorder, self._workers, wait=step.wait, stage=step.stage)

        hedge = self._take_hedge()
        return relay_of(call) if hedge is None else HedgedRelay(call, hedge, relay_of, on_second=partial(self._second_begins, step))

    def _begins(self, step: Write, call: ExpertCall) -> None:
        """The words of *call* are the answer, as far as it is known."""
        if step.by is not None:
            self._recorder.aggregated(step.by, step.why)
        self._recorder.answered_by = call.expert.id

    def _second_begins(self, step: Write, second: Second) -> None:
        """The second call has said something first."""
        self._carry_out(second.prepared)
        self._begins(replace(step, why=second.why), second.call)

    def _heard(self, call: ExpertCall) -> ExpertCall:
        """*call*, whose waits are told to who listens, as a span of the request's."""
        self._called.append(call)
        call = self._recorder.spanned(call)
        return call if self._on_progress is None else replace(call, on_progress=self._on_progress)

    def _tell(self, end: Told | Nobody) -> None:
        for noted in end.notes:
            self._recorder.judged(noted.stage, noted.confidence, noted.note)
        if isinstance(end, Told):
            self._recorder.aggregated(end.by, end.why, is_own=end.is_own)
            self._recorder.panel_changed_answer = end.changed
        self._recorder.sequential_tokens = self._prepared.ledger.sequential_tokens

    def _tell_streamed(self, end: End | None, step: Write, written: Outcome) -> None:
        """What has been streamed is the answer, whatever the mode would say of it now."""
        if isinstance(end, Told) and end.answer is written:
            self._tell(end)
        elif step.by is not None:
            why = f"{step.why}; it was streamed before it could be seen that another answer is better"
            self._recorder.aggregated(step.by, why, is_own=False)
        self._recorder.sequential_tokens = self._prepared.ledger.sequential_tokens

    def _go_on_without(self, end: Nobody) -> None:
        """Carry a stand-in out from now on. Raises the request's error where there is none."""
        self._tell(end)
        repeatable = all(call.is_repeatable for call in self._called)
        instead = stand_in(self._prepared, end.failures, before=self._failures, repeatable=repeatable)
        self._failures += end.failures
        if instead is None:
            raise error_for(self._failures, self._prepared.deadline)
        self._carry_out(instead)

    def _carry_out(self, prepared: Prepared) -> None:
        """*prepared* is carried out from now on, and not what was before."""
        self._prepared, self._recorder.decision = prepared, prepared.context.decision
        if self._on_carried is not None:
            self._on_carried(prepared)


def _end_of(play: Play) -> End | None:
    return play.now if isinstance(play.now, Told | Nobody) else None


def _names(step: Ask | Write) -> str:
    return ", ".join(dict.fromkeys(call.expert.id for call in step.calls))
