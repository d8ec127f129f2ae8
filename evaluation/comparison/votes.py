"""The majority vote of fixed experts, from answers that are already there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from domain.answers import normalise_answer
from evaluation.comparison.arms import Arm, Floats, Measured, Unavailable

NO_ANSWERS = Unavailable("majority vote", "the table has scores, not answers: give each line 'answers', or use 'consilium eval answers'")
NO_CALLS = tuple(
    Unavailable(name, "needs new samples or syntheses: 'consilium eval answers' makes them")
    for name in ("self-consistency of the best single", "self-MoA", "fixed top-k MoA")
)
_VOTERS = (3, 5)


def vote_arms(ranked: Sequence[Sequence[int]], answers: Sequence[Sequence[Sequence[str | None]]], measured: Measured) -> list[Arm]:
    """Votes of the best 3 and 5. Per part of the questions, in order: its columns, best first on *its* training questions, and the
    answers to its questions."""
    arms = []
    for k in _VOTERS:
        if k > len(measured.expert_ids):
            continue
        parts, start = [], 0
        for order, rows in zip(ranked, answers, strict=True):
            parts.append(vote_arm("", order[:k], rows, _part(measured, start, len(rows))))
            start += len(rows)
        arms.append(_stacked(f"majority vote of {k}", parts))
    return arms


def vote_arm(name: str, panel: Sequence[int], answers: Sequence[Sequence[str | None]], measured: Measured, *, note: str = "") -> Arm:
    """What the experts in columns *panel*, best first, reach by majority of normalised answers; *answers* is (N, E).

    A tie goes to the answer whose first voter comes first, as between equal router scores (``orchestrator.aggregation.vote``). Who
    answered nothing has no vote. The costs of all voters add up, the slowest of them counts.
    """
    columns = np.array(panel)
    chosen = np.array([_elected([row[c] for c in panel], panel) for row in answers])
    scores = np.where(chosen >= 0, measured.scores[np.arange(len(chosen)), np.maximum(chosen, 0)], 0.0)
    costs = None if measured.costs is None else measured.costs[:, columns].sum(axis=1)
    latency = None if measured.latency_ms is None else measured.latency_ms[:, columns].max(axis=1)
    return Arm(name, "baseline", scores, costs, calls=float(len(panel)), latency_ms=latency, note=note)


def majority(answers: Sequence[str | None]) -> int | None:
    """The number of the first voter of the answer that most give; None when nobody answered."""
    ballots = [normalise_answer(answer) if answer else "" for answer in answers]
    counts = Counter(ballot for ballot in ballots if ballot)
    if not counts:
        return None
    most = max(counts.values())
    return next(number for number, ballot in enumerate(ballots) if counts[ballot] == most)


def _elected(answers: Sequence[str | None], panel: Sequence[int]) -> int:
    winner = majority(answers)
    return -1 if winner is None else panel[winner]


def _part(measured: Measured, start: int, num: int) -> Measured:
    costs, latency = (None if matrix is None else matrix[start : start + num] for matrix in (measured.costs, measured.latency_ms))
    return Measured(measured.expert_ids, measured.scores[start : start + num], costs, latency)


def _stacked(name: str, parts: Sequence[Arm]) -> Arm:
    def together(arrays: Sequence[Floats | None]) -> Floats | None:
        known = [array for array in arrays if array is not None]
        return np.concatenate(known) if len(known) == len(parts) else None

    return replace(
        parts[0],
        name=name,
        scores=np.concatenate([part.scores for part in parts]),
        costs=together([part.costs for part in parts]),
        latency_ms=together([part.latency_ms for part in parts]),
        note="the best experts on the training questions",
    )
