"""What users said, beside what was measured: counts with both in them, and whom to try again. Pure.

Shapes: experts E, skills M, as in ``routers.scoring``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np

from domain.feedback import ExpertFeedback, FeedbackView, Tally
from routers.scoring import Counts, Floats

STALE_ANSWERS = 4.0
"""What was measured of an expert is worth at most so many answers, on a skill and overall, once it answers worse than it used to."""


def with_feedback(counts: Counts, expert_ids: Sequence[str], skills: Sequence[str], view: FeedbackView, *, weight: float) -> Counts:
    """*counts* with feedback added, *weight* answers for each; *counts* itself where there is none.

    Of experts whose answers have got worse the measured part shrinks to ``STALE_ANSWERS``, and its accuracy by as much as the expert has
    got worse overall: on skills where nobody has judged it since, that is what to expect.
    """
    if not view.experts or not weight:
        return counts
    rows = [row for row, expert_id in enumerate(expert_ids) if expert_id in view.experts]
    if not rows:
        return counts
    answered, correct = counts.num_answered.astype(float), counts.num_correct.astype(float)
    overall_answered, overall_correct = counts.overall_answered.astype(float), counts.overall_correct.astype(float)
    total = counts.symbolic_total.astype(float)
    for row in rows:
        known = view.experts[expert_ids[row]]
        if known.drifted:
            kept, left = _kept(answered[row]), _left(known)
            answered[row], correct[row] = answered[row] * kept, correct[row] * kept * left
            share = float(_kept(overall_answered[row : row + 1])[0])
            overall_answered[row], overall_correct[row] = overall_answered[row] * share, overall_correct[row] * share * left
            total[row] *= share
        overall_answered[row] += weight * known.overall.num_answered
        overall_correct[row] += weight * known.overall.num_correct
        total[row] += weight * sum(2 * tally.num_correct - tally.num_answered for tally in known.by_skill.values())
        for column, skill in enumerate(skills):
            tally = known.by_skill.get(skill, Tally())
            answered[row, column] += weight * tally.num_answered
            correct[row, column] += weight * tally.num_correct
    return replace(
        counts,
        num_answered=answered,
        num_correct=correct,
        overall_answered=overall_answered,
        overall_correct=overall_correct,
        symbolic_total=total,
    )


def _kept(answered: Floats) -> Floats:
    """Share of each count that is kept."""
    return np.minimum(1.0, STALE_ANSWERS / np.maximum(answered, STALE_ANSWERS))


def _left(known: ExpertFeedback) -> float:
    """How much of an expert's accuracy is left, in [0, 1]: of the answers since, with one right and one wrong in front, to those before.

    Both by feedback: what was measured is over other questions than those that are routed to it.
    """
    if not known.usual:
        return 1.0
    return min(1.0, (known.overall.num_correct + 1) / (known.overall.num_answered + 2) / known.usual)


def retried(by_measurement: Sequence[float], expert_ids: Sequence[str], view: FeedbackView, *, share: float, seed: int) -> str | None:
    """The expert that is tried again on this query although it has got worse; None on most.

    Only who would be first by *by_measurement* alone (scores without feedback), on *share* of the queries: what that can cost is
    bounded by this share of its own ground. The same seed decides the same way.
    """
    if not share or not len(by_measurement):
        return None
    first = expert_ids[int(np.argmax(np.asarray(by_measurement)))]
    known = view.experts.get(first)
    # Mixed, so that the draw has nothing to do with those that pick experts by the same seed.
    return first if known is not None and known.drifted and Random(f"retry {seed}").random() < share else None


def told(expert_id: str, skills: Sequence[str], view: FeedbackView) -> str:
    """What feedback says of an expert, for people; "" for nothing."""
    known = view.experts.get(expert_id)
    if known is None or not known.overall.num_answered:
        return ""
    parts = [
        f"{skill} {tally.num_correct / tally.num_answered:.2f} of {tally.num_answered:.3g}"
        for skill in skills[:1]
        if (tally := known.by_skill.get(skill)) is not None and tally.num_answered
    ] or [f"{known.overall.num_correct / known.overall.num_answered:.2f} of {known.overall.num_answered:.3g}"]
    return f"feedback {parts[0]}{', worse than it used to be' if known.drifted else ''}"
