"""A comparison's result: everything that is printed, written and drawn. Values only; NaN where a figure does not exist."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evaluation.comparison.arms import CurvePoint, Unavailable
from evaluation.comparison.coverage import Coverage
from evaluation.comparison.oracle import OracleGap

NAN = float("nan")
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Row:
    """One way to answer."""

    name: str
    kind: str
    accuracy: float
    """Mean score over the questions."""
    interval: Interval
    """95 %, bootstrap over questions."""
    above_best_single: float
    above_interval: Interval
    gap_closed: float
    """Share of the way from the best single expert to the oracle."""
    gap_interval: Interval
    regret: float
    cost: float = NAN
    """Mean per question, in the report's unit."""
    relative_cost: float = NAN
    """To the best single expert's."""
    calls: float = 1.0
    """Mean per question."""
    latency_ms: float = NAN
    num_failed: int = 0
    num_unknown: int = 0
    """Questions on which the chosen expert was never measured; they count in no figure."""
    lambda_: float | None = None
    area: float = NAN
    """Under the hull of its cost-quality curve, as mean accuracy over the costs from the cheapest to the dearest expert."""
    equal_cost: float = NAN
    """The smallest share of the best single expert's cost at which it scores as much."""
    equal_lambda: float = NAN
    curve: tuple[CurvePoint, ...] = ()
    by_part: Mapping[str, float] = field(default_factory=dict)
    """Accuracy per fold or task."""
    gap_by_part: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class GroupTable:
    """Accuracy per group ("category", "skill") and way."""

    grouping: str
    groups: tuple[str, ...]
    num_questions: tuple[int, ...]
    ways: tuple[str, ...]
    accuracy: tuple[tuple[float, ...], ...]
    """(groups, ways)."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """How questions of one kind spread over another: categories as routed over categories as they are, or experts over categories."""

    name: str
    kind: str
    """``categories`` or ``experts``: what the columns are."""
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def accuracy(self) -> float:
        """The share on the diagonal, for categories; NaN for experts."""
        if self.kind != "categories":
            return NAN
        total = sum(map(sum, self.counts))
        right = sum(
            count
            for row, counts in zip(self.rows, self.counts, strict=True)
            for column, count in zip(self.columns, counts, strict=True)
            if row == column
        )
        return right / total if total else NAN


@dataclass(frozen=True, slots=True)
class Judged:
    """What an expert that judged answers was asked, in no way's calls and costs."""

    expert: str
    num_verdicts: int
    num_asked: int
    """Calls of this run; other verdicts were known."""
    num_unreadable: int = 0
    """Neither yes nor no."""
    num_failed: int = 0
    prompt_tokens: int = 0
    """Of this run's calls."""
    completion_tokens: int = 0
    is_judged_too: bool = False
    """Whether it is one of those whom it judges."""

    def told(self, *, so: str = "count neither as right nor as wrong") -> tuple[str, ...]:
        """For people; *so*: what becomes of answers without a verdict."""
        if not self.num_verdicts + self.num_unreadable + self.num_failed:
            return (f"the judge {self.expert} was not needed",)
        tokens = self.prompt_tokens + self.completion_tokens
        asked = f"was asked {self.num_asked} times for it now ({tokens} tokens)"
        lines = [f"the judge {self.expert} gave {self.num_verdicts} verdicts and {asked}, which is in no way's calls or costs"]
        if self.num_unreadable or self.num_failed:
            lines.append(
                f"{self.num_unreadable} verdicts of {self.expert} could not be read and {self.num_failed} did not come: these answers {so}"
            )
        if self.is_judged_too:
            lines.append(f"{self.expert} judges its own answers too")
        return tuple(lines)


@dataclass(frozen=True, slots=True)
class LearningPoint:
    """What a router reaches when it is fitted on a part of the questions."""

    name: str
    num_train: int
    """Mean over folds."""
    accuracy: float
    gap_closed: float


@dataclass(frozen=True, slots=True)
class Report:
    """One comparison."""

    title: str
    settings: Mapping[str, Any]
    num_questions: int
    expert_ids: tuple[str, ...]
    unit: str
    """Of costs; "" when they are not known."""
    best_single: str
    """The expert, or the experts, that the training questions would have chosen."""
    rows: tuple[Row, ...]
    unavailable: tuple[Unavailable, ...] = ()
    oracle_gaps: tuple[OracleGap, ...] = ()
    coverage: Coverage = Coverage(0.0)
    groups: tuple[GroupTable, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    learning: tuple[LearningPoint, ...] = ()
    duplicates: Mapping[str, int] = field(default_factory=dict)
    judged: Judged | None = None
    notes: tuple[str, ...] = ()

    def row(self, name: str) -> Row:
        """The way called *name*."""
        return next(row for row in self.rows if row.name == name)


def as_json(value: Any) -> Any:
    """*value* with dataclasses as objects and what is not finite as null: JSON has no NaN."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name.rstrip("_"): as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
