"""Outcomes counted up: per expert, overall and per skill, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from domain.evaluation import QuestionOutcome
from domain.skills import SkillCount
from evaluation.intervals import wilson_interval


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of right answers with its 95 % Wilson interval."""

    num_answered: int
    num_correct: int

    @property
    def share(self) -> float | None:
        """None when nothing was answered."""
        return self.num_correct / self.num_answered if self.num_answered else None

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.num_correct, self.num_answered)

    @classmethod
    def of(cls, count: SkillCount) -> Accuracy:
        return cls(count.num_answered, count.num_correct)


@dataclass(frozen=True, slots=True)
class ExpertSummary:
    """How one expert did. Questions with an error are in ``num_failed`` and nowhere else."""

    expert_id: str
    overall: Accuracy
    by_skill: Mapping[str, Accuracy] = field(default_factory=dict)
    by_category: Mapping[str, Accuracy] = field(default_factory=dict)
    num_failed: int = 0
    stopped: str | None = None
    """Why the expert was not asked all questions, if it was not."""


def summarise(outcomes: Iterable[QuestionOutcome], *, stopped: Mapping[str, str] | None = None) -> dict[str, ExpertSummary]:
    """One summary per expert among *outcomes* and *stopped*, in the order of first appearance.

    A question with several skills counts for each of them, but once overall; one without skills counts for its category.
    """
    by_expert: dict[str, list[QuestionOutcome]] = {}
    for outcome in outcomes:
        by_expert.setdefault(outcome.expert_id, []).append(outcome)
    reasons = dict(stopped or {})
    for expert_id in reasons:
        by_expert.setdefault(expert_id, [])
    return {expert_id: _summary(expert_id, found, reasons.get(expert_id)) for expert_id, found in by_expert.items()}


def _summary(expert_id: str, outcomes: list[QuestionOutcome], stopped: str | None) -> ExpertSummary:
    answered = [outcome for outcome in outcomes if outcome.error is None]
    return ExpertSummary(
        expert_id=expert_id,
        overall=Accuracy.of(_count(answered)),
        by_skill=_grouped((label, outcome) for outcome in answered for label in outcome.labels),
        by_category=_grouped((outcome.category, outcome) for outcome in answered if outcome.category),
        num_failed=len(outcomes) - len(answered),
        stopped=stopped,
    )


def _grouped(pairs: Iterable[tuple[str, QuestionOutcome]]) -> dict[str, Accuracy]:
    groups: dict[str, list[QuestionOutcome]] = {}
    for name, outcome in pairs:
        groups.setdefault(name, []).append(outcome)
    return {name: Accuracy.of(_count(groups[name])) for name in sorted(groups)}


def _count(outcomes: list[QuestionOutcome]) -> SkillCount:
    return SkillCount(len(outcomes), sum(outcome.correct for outcome in outcomes))
