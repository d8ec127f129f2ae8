"""Measured counts as JSON."""

from __future__ import annotations

from collections.abc import Mapping

from api.endpoints.admin.resources import Json
from domain.skills import AggregatorProfile, SkillCount, SkillProfile
from evaluation.intervals import wilson_interval
from evaluation.summary import Accuracy, ExpertSummary


def count_view(num_correct: int, num_answered: int) -> Json:
    """Counts, their share (null when nothing was answered) and its 95 % Wilson interval."""
    low, high = wilson_interval(num_correct, num_answered)
    return {
        "num_answered": num_answered,
        "num_correct": num_correct,
        "accuracy": round(num_correct / num_answered, 6) if num_answered else None,
        "interval": [round(low, 6), round(high, 6)],
    }


def _skill_count(count: SkillCount | Accuracy) -> Json:
    return count_view(count.num_correct, count.num_answered)


def _named(counts: Mapping[str, SkillCount | Accuracy], key: str) -> list[Json]:
    return [{key: name, **_skill_count(count)} for name, count in sorted(counts.items())]


def profile_view(profile: SkillProfile, num_outdated: int) -> Json:
    """*num_outdated*: questions that only older cards of the expert have answered, which is in none of the counts."""
    return {
        "expert": profile.expert_id,
        "overall": _skill_count(profile.overall),
        "skills": _named(profile.by_skill, "skill"),
        "num_outdated": num_outdated,
    }


def aggregator_profile_view(profile: AggregatorProfile) -> Json:
    overall, categories = _skill_count(profile.overall), _named(profile.by_category, "category")
    return {"expert": profile.expert_id, "overall": overall, "categories": categories}


def summary_view(summary: ExpertSummary) -> Json:
    return {
        "expert": summary.expert_id,
        "overall": _skill_count(summary.overall),
        "skills": _named(summary.by_skill, "skill"),
        "num_failed": summary.num_failed,
        "stopped": summary.stopped,
    }
