"""From outcomes to counts. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from domain.evaluation import QuestionOutcome
from domain.skills import SkillCount, SkillProfile

OVERALL = ""
"""Stands for the overall count where counts are kept by skill: no skill has an empty name."""

Counts = Mapping[tuple[str, str], SkillCount]
"""By expert id and skill."""


def tally(outcomes: Iterable[QuestionOutcome], *, minus: Iterable[QuestionOutcome] = ()) -> dict[tuple[str, str], SkillCount]:
    """The counts of *outcomes* less those of *minus*, per expert and skill, and per expert over all (``OVERALL``).

    An outcome with an error counts for nothing. A count may be negative when *minus* is larger; zeros are left out.
    """
    sums: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for sign, group in ((1, outcomes), (-1, minus)):
        for outcome in group:
            if outcome.error is not None:
                continue
            for skill in {OVERALL, *outcome.labels}:
                count = sums[outcome.expert_id, skill]
                count[0] += sign
                count[1] += sign * outcome.correct
    return {key: SkillCount(answered, correct) for key, (answered, correct) in sums.items() if answered or correct}


def to_profiles(counts: Counts) -> dict[str, SkillProfile]:
    """One profile per expert that has a count, experts and skills by name."""
    by_expert: defaultdict[str, dict[str, SkillCount]] = defaultdict(dict)
    for (expert_id, skill), count in sorted(counts.items()):
        by_expert[expert_id][skill] = count
    return {
        expert_id: SkillProfile(expert_id, by_skill=skills, overall=skills.pop(OVERALL, SkillCount()))
        for expert_id, skills in by_expert.items()
    }
