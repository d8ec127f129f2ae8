"""A whole cascade, climbed to its last expert: what its threshold is calibrated with."""

from __future__ import annotations

from collections.abc import Mapping

from domain.plan import ExpertCall, Outcome
from orchestrator.cascade.ladder import Ask, Ladder, next_step
from orchestrator.dispatch import dispatch
from orchestrator.ports import Workers
from orchestrator.recorder import TraceRecorder


class Climb:
    """Mutable: what has ended so far."""

    def __init__(self, ladder: Ladder) -> None:
        self.ladder = ladder
        self._outcomes: dict[int, Outcome] = {}

    @property
    def outcomes(self) -> Mapping[int, Outcome]:
        """Calls that have ended, by position."""
        return self._outcomes

    async def to_the_end(self, recorder: TraceRecorder, workers: Workers) -> None:
        """Make every call that the ladder leads to."""

        def ended(call: ExpertCall, outcome: Outcome) -> None:
            recorder.call(outcome, call.role)

        while isinstance(step := next_step(self.ladder, self._outcomes), Ask):
            calls = [self.ladder.call(position, self._outcomes) for position in step.positions]
            outcomes = await dispatch(calls, workers, on_outcome=ended, on_cancelled=recorder.cancelled)
            self._outcomes |= dict(zip(step.positions, outcomes, strict=True))
