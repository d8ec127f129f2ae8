"""Which experts a set needs: what they cover together, what each adds, who adds nothing.

The coverage report of AC/DC ("Discovering Novel LLM Experts"): a set of experts is worth what at least one of its members can do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.comparison.arms import Floats

ENOUGH = 0.99
"""Share of the union's coverage from which a subset is recommended."""
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class ExpertCoverage:
    """What one expert is worth beside the others."""

    expert_id: str
    accuracy: float
    marginal_gain: float
    """What the union loses without it."""
    greedy_rank: int
    """1 for the first to take."""
    greedy_coverage: float
    """Of those up to it in that order."""
    redundant: bool
    """Whether the others cover all that it does; of two that cover the same, the weaker one."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of a whole set."""

    union: float
    """Mean over questions of the best score among the experts."""
    experts: tuple[ExpertCoverage, ...] = ()
    """In the greedy order."""
    recommended: tuple[str, ...] = ()
    """The shortest beginning of the greedy order that reaches ``ENOUGH`` of the union."""
    agreement: tuple[tuple[float, ...], ...] = ()
    """(E, E), in the greedy order: how alike two experts' scores are, 1 minus the mean distance."""


def coverage_of(expert_ids: tuple[str, ...], scores: Floats) -> Coverage:
    """*scores* is (N, E); what was not measured covers nothing."""
    if not len(scores) or not expert_ids:
        return Coverage(0.0)
    filled = np.nan_to_num(scores, nan=0.0).astype(np.float64)
    accuracy = np.array([np.nanmean(column) if np.isfinite(column).any() else 0.0 for column in scores.T])
    union = float(filled.max(axis=1).mean())
    order, reached = _greedy(filled, accuracy)
    gains = {column: union - _union(np.delete(filled, column, axis=1)) for column in order}
    redundant = _redundant(filled, accuracy, union)
    rows = tuple(
        ExpertCoverage(expert_ids[c], float(accuracy[c]), max(0.0, gains[c]), rank, covered, c in redundant)
        for rank, (c, covered) in enumerate(zip(order, reached, strict=True), start=1)
    )
    enough = next(rank for rank, covered in enumerate(reached, start=1) if covered >= ENOUGH * union - _EPSILON)
    return Coverage(union, rows, tuple(row.expert_id for row in rows[:enough]), _agreement(scores[:, order]))


def _union(scores: Floats) -> float:
    return float(scores.max(axis=1).mean()) if scores.shape[1] else 0.0


def _greedy(scores: Floats, accuracy: Floats) -> tuple[list[int], list[float]]:
    """Always the one that adds most to the union; of equals the more accurate, then the first."""
    left, order, reached = list(range(scores.shape[1])), list[int](), list[float]()
    covered = np.zeros(len(scores))
    while left:
        gains = np.maximum(scores[:, left], covered[:, None]).mean(axis=0)
        at = max(range(len(left)), key=lambda i: (round(float(gains[i]), 12), accuracy[left[i]], -left[i]))
        column = left.pop(at)
        covered = np.maximum(covered, scores[:, column])
        order.append(column)
        reached.append(float(covered.mean()))
    return order, reached


def _redundant(scores: Floats, accuracy: Floats, union: float) -> set[int]:
    """Taken out one by one, the weakest first, as long as the rest covers as much."""
    kept = list(range(scores.shape[1]))
    for column in sorted(kept, key=lambda c: accuracy[c]):
        others = [c for c in kept if c != column]
        if others and _union(scores[:, others]) >= union - _EPSILON:
            kept = others
    return set(range(scores.shape[1])) - set(kept)


def _agreement(scores: Floats) -> tuple[tuple[float, ...], ...]:
    columns = scores.T
    return tuple(tuple(_alike(one, other) for other in columns) for one in columns)


def _alike(one: Floats, other: Floats) -> float:
    both = np.isfinite(one) & np.isfinite(other)
    return float(1.0 - np.abs(one[both] - other[both]).mean()) if both.any() else float("nan")
