"""Counting replies and showing them: accuracy per domain, the oracle, the specialists, the targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from domain.skills import LabelledQuestion
from evaluation.report import Table, accuracy_json, percent
from evaluation.summary import Accuracy

MIN_ACCURACY = 0.90
MIN_POINTS_ABOVE_BEST_SINGLE = 25.0
MIN_SHARE_OF_ORACLE = 0.97


@dataclass(frozen=True, slots=True)
class Asked:
    """One test question. ``tricky``: its wording points at another domain than the one that answers."""

    question: LabelledQuestion
    tricky: bool = False

    @property
    def category(self) -> str:
        return self.question.category or ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request brought."""

    question_id: str
    correct: bool
    answer: str = ""
    experts: tuple[str, ...] = ()
    num_calls: int = 0
    latency_ms: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """All replies of one way to ask, in the order of the questions."""

    name: str
    replies: tuple[Reply, ...]
    wall_s: float | None = None
    is_expert: bool = False

    @property
    def num_failed(self) -> int:
        return sum(reply.error is not None for reply in self.replies)


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that must be reached, with what was measured."""

    name: str
    reached: bool
    measured: str


def accuracy(measured: Measured, asked: Sequence[Asked], *, category: str | None = None, only_tricky: bool = False) -> Accuracy:
    """Right answers among all questions, or those of one category, or the misleading ones."""
    kept = [
        reply.correct
        for one, reply in zip(asked, measured.replies, strict=True)
        if (category is None or one.category == category) and (one.tricky or not only_tricky)
    ]
    return Accuracy(len(kept), sum(kept))


def categories_of(asked: Iterable[Asked]) -> list[str]:
    """In the order of first appearance."""
    return list(dict.fromkeys(one.category for one in asked))


def oracle_of(experts: Sequence[Measured]) -> Measured:
    """What always choosing an expert that is right, where there is one, would reach."""
    replies = [Reply(row[0].question_id, any(reply.correct for reply in row)) for row in zip(*(m.replies for m in experts), strict=True)]
    return Measured("oracle", tuple(replies))


def specialists_of(experts: Sequence[Measured], asked: Sequence[Asked]) -> dict[str, str]:
    """Category to its specialist: the expert of that name, else the one that is best at it here."""
    names = [measured.name for measured in experts]
    best: dict[str, str] = {}
    for category in categories_of(asked):
        num_correct = {measured.name: accuracy(measured, asked, category=category).num_correct for measured in experts}
        best[category] = max(num_correct, key=num_correct.__getitem__)
    return {category: category if category in names else name for category, name in best.items()}


def routed_right(measured: Measured, asked: Sequence[Asked], specialists: Mapping[str, str]) -> Accuracy | None:
    """How often the first expert was the question's specialist; None where nothing was routed."""
    firsts = [
        reply.experts[0] == specialists.get(one.category) for one, reply in zip(asked, measured.replies, strict=True) if reply.experts
    ]
    return Accuracy(len(firsts), sum(firsts)) if firsts and not measured.is_expert else None


def targets_of(auto: Measured, experts: Sequence[Measured], asked: Sequence[Asked]) -> list[Target]:
    """The targets of the first version, each with what was measured."""
    own = accuracy(auto, asked).share or 0.0
    best = max(experts, key=lambda measured: accuracy(measured, asked).num_correct)
    points = 100 * (own - (accuracy(best, asked).share or 0.0))
    oracle = accuracy(oracle_of(experts), asked).share or 0.0
    share = own / oracle if oracle else 0.0
    return [
        Target(f"auto right on at least {MIN_ACCURACY:.0%}", own >= MIN_ACCURACY, f"{own:.1%}"),
        Target(
            f"at least {MIN_POINTS_ABOVE_BEST_SINGLE:g} points above the best single expert",
            points >= MIN_POINTS_ABOVE_BEST_SINGLE,
            f"{points:+.1f} over {best.name}",
        ),
        Target(f"at least {MIN_SHARE_OF_ORACLE:.0%} of the oracle", share >= MIN_SHARE_OF_ORACLE, f"{share:.1%} of {oracle:.1%}"),
    ]


def table_of(rows: Sequence[Measured], asked: Sequence[Asked], specialists: Mapping[str, str]) -> Table:
    """One row per way to ask."""
    categories = categories_of(asked)
    columns = ("asked", "right % [95 %]", *categories, "misleading", "routed right", "calls", "failed", "wall s")
    cells = []
    for measured in rows:
        per_category = (percent(accuracy(measured, asked, category=category)) for category in categories)
        cells.append((
            measured.name,
            percent(accuracy(measured, asked), interval=True),
            *per_category,
            percent(accuracy(measured, asked, only_tricky=True), interval=True),
            percent(routed_right(measured, asked, specialists)),
            f"{_mean_calls(measured):.2f}" if _mean_calls(measured) else "–",
            str(measured.num_failed),
            f"{measured.wall_s:.1f}" if measured.wall_s is not None else "–",
        ))  # fmt: skip
    return Table(f"{len(asked)} questions, {sum(one.tricky for one in asked)} of them misleading", columns, tuple(cells))


def json_of(rows: Sequence[Measured], asked: Sequence[Asked], specialists: Mapping[str, str], targets: Sequence[Target]) -> dict[str, Any]:
    """The table and the targets for programs."""
    return {
        "num_questions": len(asked),
        "num_misleading": sum(one.tricky for one in asked),
        "specialists": dict(specialists),
        "rows": [_row_json(measured, asked, specialists) for measured in rows],
        "targets": [asdict(target) for target in targets],
    }


def _row_json(measured: Measured, asked: Sequence[Asked], specialists: Mapping[str, str]) -> dict[str, Any]:
    routed = routed_right(measured, asked, specialists)
    return {
        "name": measured.name,
        "overall": accuracy_json(accuracy(measured, asked)),
        "by_category": {category: accuracy_json(accuracy(measured, asked, category=category)) for category in categories_of(asked)},
        "misleading": accuracy_json(accuracy(measured, asked, only_tricky=True)),
        "routed_right": accuracy_json(routed) if routed else None,
        "calls_per_answer": _mean_calls(measured),
        "num_failed": measured.num_failed,
        "wall_s": measured.wall_s,
    }


def _mean_calls(measured: Measured) -> float:
    counted = [reply.num_calls for reply in measured.replies if reply.num_calls]
    return sum(counted) / len(counted) if counted else 0.0
