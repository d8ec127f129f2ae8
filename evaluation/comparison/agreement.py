"""How often experts that are wrong say the same: what a vote weighed by accuracy has to know (option ``alike`` of ``weighted_vote``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from domain.answers import normalise_answer
from evaluation.comparison.arms import Floats

_WRONG = 0.5


@dataclass(frozen=True, slots=True)
class Agreement:
    """Pairs of experts that were both wrong on the same question."""

    num_pairs: int
    num_alike: int

    @property
    def share(self) -> float | None:
        """None without a pair."""
        return self.num_alike / self.num_pairs if self.num_pairs else None


def agreement(answers: Sequence[Sequence[str | None]], scores: Floats) -> Agreement:
    """Of *answers* (N, E) with *scores* (N, E) in [0, 1], NaN where not measured: those of at most a half are wrong. Answers are compared
    as votes compare text; who answered nothing is in no pair."""
    num_pairs = num_alike = 0
    spelled = cache(normalise_answer)  # of multiple choice there are few different ones
    wrong = np.asarray(scores) <= _WRONG  # NaN is not below
    for said, missed in zip(answers, wrong.tolist(), strict=True):
        ballots = [spelled(answer) for answer, is_wrong in zip(said, missed, strict=True) if is_wrong and answer]
        counts = Counter(ballot for ballot in ballots if ballot)
        num_pairs += _pairs(counts.total())
        num_alike += sum(map(_pairs, counts.values()))
    return Agreement(num_pairs, num_alike)


def _pairs(num: int) -> int:
    return num * (num - 1) // 2
