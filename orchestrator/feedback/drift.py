"""Whether an expert has got worse, or better again: Page's cumulative sum test on right and wrong answers. Pure.

E. S. Page, "Continuous inspection schemes", Biometrika 41 (1954). The sum of log-likelihood ratios of "accuracy is now p1" against "it
is still p0", cut at 0; an alarm when it exceeds h. The mean number of answers between two false alarms is e^h at least; the place where
the sum last was 0 is the likeliest moment of the change. Two to five wrong answers in a row are enough where an expert used to be right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_LEAST, _MOST = 0.02, 0.95
"""Accuracies are taken to be within: a single answer must not decide, however regular the answers before were."""


@dataclass(frozen=True, slots=True)
class DriftLimits:
    """When an alarm is given."""

    threshold: float = math.log(2000)
    """h: a false alarm in about two thousand answers of an expert."""
    drop: float = 0.5
    """p1 / p0: the smallest change that is looked for, half of the accuracy. Larger ones are found sooner."""
    warm_up: int = 20
    """Answers from which the usual accuracy is known. Before them there is no alarm."""


@dataclass(slots=True)
class CumulativeSum:
    """One sum. Mutable."""

    value: float = 0.0
    since: int = 0
    """Answers since the sum was last 0: those after the change, if there was one."""
    scored: float = 0.0
    """The sum of their scores."""

    def add(self, score: float, *, usual: float, changed: float) -> float:
        """The sum with *score* in it."""
        before, after = (min(max(accuracy, _LEAST), _MOST) for accuracy in (usual, changed))
        ratio = score * math.log(after / before) + (1 - score) * math.log((1 - after) / (1 - before))
        self.value = max(0.0, self.value + ratio)
        self.since, self.scored = (self.since + 1, self.scored + score) if self.value > 0 else (0, 0.0)
        return self.value


@dataclass(slots=True)
class DriftTest:
    """One expert's test: looks for a drop, and after an alarm for the way back. Mutable."""

    limits: DriftLimits = field(default_factory=DriftLimits)
    drifted: bool = False
    num_usual: int = 0
    sum_usual: float = 0.0
    num_bad: int = 0
    sum_bad: float = 0.0
    sum_: CumulativeSum = field(default_factory=CumulativeSum)

    def take(self, score: float) -> int | None:
        """Look at one answer. After an alarm in either direction: how many of the last answers are from after the change."""
        if self.drifted:
            # Down: how bad it has become is estimated from the answers since, with one right and one wrong in front.
            bad = min((self.sum_bad + 1) / (self.num_bad + 2), 0.5 * (self.usual + self.limits.drop * self.usual))
            alarm = self.sum_.add(score, usual=bad, changed=self.usual) > self.limits.threshold
            self.num_bad, self.sum_bad = self.num_bad + 1, self.sum_bad + score
        else:
            known = self.num_usual >= self.limits.warm_up
            alarm = known and self.sum_.add(score, usual=self.usual, changed=self.limits.drop * self.usual) > self.limits.threshold
            self.num_usual, self.sum_usual = self.num_usual + 1, self.sum_usual + score
        if not alarm:
            return None
        since, scored = max(1, self.sum_.since), self.sum_.scored
        if not self.drifted:  # what was answered after the change is not what is usual
            self.num_usual, self.sum_usual = self.num_usual - since, self.sum_usual - scored
            self.num_bad, self.sum_bad = since, scored
        else:
            self.num_usual, self.sum_usual = self.num_usual + since, self.sum_usual + scored
        self.drifted, self.sum_ = not self.drifted, CumulativeSum()
        return since

    @property
    def usual(self) -> float:
        """The accuracy up to now, one standard error lower: what is not known well must not raise an alarm."""
        if not self.num_usual:
            return 0.5
        mean = self.sum_usual / self.num_usual
        return max(_LEAST, mean - math.sqrt(max(mean * (1 - mean), 0.01) / self.num_usual))
