"""Experts one after the other, until an answer is sure enough; what comes next is the ladder's to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domain.plan import Outcome
from orchestrator.cascade.ladder import Accepted, Ladder, Verdict, next_step, stands
from orchestrator.cascade.ladder import Ask as LadderAsk
from orchestrator.modes.base import Ask, Nobody, Noted, SoFar, Steps, Told, Write


@dataclass(frozen=True, slots=True)
class Cascade:
    ladder: Ladder

    announced = "cascade"
    is_alone = False
    others = ()
    is_known_ahead = False
    reader = None

    @property
    def num_calls(self) -> int:
        return self.ladder.num_calls

    def steps(self) -> Steps:
        ladder, outcomes = self.ladder, dict[int, Outcome]()
        while isinstance(step := next_step(ladder, outcomes), LadderAsk):
            calls = tuple(ladder.call(position, outcomes) for position in step.positions)
            so_far = _so_far(step)
            if step.stage is ladder.stages[-1]:
                ended = yield Write(calls[0], stage=step.stage.number, wait="experts", so_far=so_far, positions=step.positions)
            else:
                ended = yield Ask(calls, step.stage.number, so_far=so_far, positions=step.positions)
            outcomes |= dict(zip(step.positions, ended, strict=True))
        if isinstance(step, Accepted):
            return _told(step)
        return Nobody(step.failures, _noted(step.verdicts))


def _so_far(step: LadderAsk) -> SoFar | None:
    """The surest answer before *step*, for when nobody else can be asked."""
    best = step.best
    return None if best is None else lambda because: _told(stands(best, step.before, because))


def _told(step: Accepted) -> Told:
    by = f"cascade:{step.answer.expert_id}{' (fallback)' if step.stood_in else ''}"
    return Told(step.answer, by, step.why, _noted(step.verdicts))


def _noted(verdicts: Sequence[Verdict]) -> tuple[Noted, ...]:
    return tuple(
        Noted(verdict.stage.number, verdict.note, None if verdict.assessed is None else verdict.assessed.confidence) for verdict in verdicts
    )
