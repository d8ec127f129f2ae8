"""One way to answer, on every question of a comparison.

Shapes in this package: N questions, E experts, W ways. Scores are in [0, 1], NaN where not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

ArmKind = Literal["router", "strategy", "single", "baseline"]


@dataclass(frozen=True, slots=True)
class Arm:
    """What one way scored and cost."""

    name: str
    kind: ArmKind
    scores: Floats
    """(N) score of its answer."""
    costs: Floats | None = None
    """(N) in the comparison's unit; NaN where not known."""
    chosen: Ints | None = None
    """(N) column of the expert that answered; -1 where it was none, or several."""
    calls: Floats | float = 1.0
    """(N) calls of experts, or as many on every question."""
    latency_ms: Floats | None = None
    """(N)."""
    num_failed: int = 0
    """Questions without an answer, which score 0."""
    lambda_: float | None = None
    """Weight of the price, where the way has one."""
    curve: tuple[CurvePoint, ...] = ()
    """What it scores and costs at other weights of the price."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A baseline that the data cannot tell, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Mean score and mean cost at one weight of the price."""

    lambda_: float
    cost: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known about the questions of a comparison, whoever answers them."""

    expert_ids: tuple[str, ...]
    scores: Floats
    """(N, E)."""
    costs: Floats | None = None
    """(N, E) of each expert's answer, in *unit*."""
    latency_ms: Floats | None = None
    unit: str = ""
    groups: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """Per grouping ("category", "skill"): the names that each question belongs to."""
    parts: tuple[str, ...] = ()
    """(N) or empty: the fold or task that each question was tested in."""

    def __len__(self) -> int:
        return len(self.scores)

    def scores_of(self, columns: Ints) -> Floats:
        """(N) what expert *columns*[n] scored on question n."""
        return cells(self.scores, columns)

    def costs_of(self, columns: Ints) -> Floats | None:
        """(N) what that cost; None where costs are not known."""
        return None if self.costs is None else cells(self.costs, columns)

    def choice(self, name: str, columns: Ints, *, kind: ArmKind = "router", lambda_: float | None = None, note: str = "") -> Arm:
        """The arm that gives question n to expert *columns*[n]."""
        latency = None if self.latency_ms is None else cells(self.latency_ms, columns)
        return Arm(name, kind, self.scores_of(columns), self.costs_of(columns), columns, latency_ms=latency, lambda_=lambda_, note=note)


def cells(matrix: Floats, columns: Ints) -> Floats:
    """(N) the cell of each row of *matrix* (N, E) in its column of *columns*."""
    taken: Floats = matrix[np.arange(len(columns)), columns]
    return taken
