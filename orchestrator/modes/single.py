"""One expert's answer as it is."""

from __future__ import annotations

from dataclasses import dataclass

from domain.plan import Candidate, ExpertCall
from orchestrator.modes.base import Nobody, Steps, Told, Write

SINGLE = "single"
_ALONE = "one expert was asked"


@dataclass(frozen=True, slots=True)
class Single:
    call: ExpertCall
    why: str = _ALONE
    """Why nothing has to be aggregated."""

    announced = SINGLE
    num_calls = 1
    is_alone = True
    others = ()
    is_known_ahead = True
    reader = None

    def steps(self) -> Steps:
        """Of a call that was hedged, every failure is sent where nobody has answered."""
        outcomes = yield Write(self.call, SINGLE, self.why, wait="experts", holds_back=False)
        (outcome, *_) = outcomes
        return Told(outcome, SINGLE, self.why) if isinstance(outcome, Candidate) else Nobody(tuple(outcomes))


def why_single(num_calls: int) -> str:
    """Why nothing had to be aggregated, when so many candidates were asked."""
    return _ALONE if num_calls == 1 else f"one of {num_calls} candidates answered"
