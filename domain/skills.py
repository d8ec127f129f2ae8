"""What is measured about experts, and what a query needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

GraderName = Literal["exact", "exact_case", "choice", "number", "math", "contains", "regex", "judge"]
GRADER_NAMES: tuple[str, ...] = get_args(GraderName)


@dataclass(frozen=True, slots=True)
class SkillCount:
    """How one expert did on the questions of one skill. Counts, so that runs add up."""

    num_answered: int = 0
    num_correct: int = 0

    def __add__(self, other: SkillCount) -> SkillCount:
        return SkillCount(self.num_answered + other.num_answered, self.num_correct + other.num_correct)

    @property
    def num_wrong(self) -> int:
        return self.num_answered - self.num_correct

    @property
    def symbolic(self) -> int:
        """The ±1 sum of Symbolic-MoE (arXiv 2503.05641)."""
        return self.num_correct - self.num_wrong

    def accuracy(self, *, prior_correct: float = 0.0, prior_wrong: float = 0.0) -> float:
        """``(num_correct + a) / (num_answered + a + b)``, in [0, 1]; 0 when there is nothing to divide."""
        total = self.num_answered + prior_correct + prior_wrong
        return (self.num_correct + prior_correct) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class SkillProfile:
    """One expert's measured skills."""

    expert_id: str
    by_skill: Mapping[str, SkillCount] = field(default_factory=dict)
    overall: SkillCount = SkillCount()
    """Each question once, however many skills it has."""


@dataclass(frozen=True, slots=True)
class AggregatorProfile:
    """How often one expert, as aggregator, found the right answer among one right and two wrong ones."""

    expert_id: str
    by_category: Mapping[str, SkillCount] = field(default_factory=dict)
    overall: SkillCount = SkillCount()


@dataclass(frozen=True, slots=True)
class SkillMatch:
    """A skill that a query needs. ``similarity`` is a cosine in [-1, 1]; ``weight`` its share, all shares sum to 1."""

    skill: str
    similarity: float
    weight: float


@dataclass(frozen=True, slots=True)
class LabelledQuestion:
    """A question with a known answer; a line of the JSONL that `consilium questions add` reads (docs/cli.md)."""

    id: str
    question: str
    answer: str
    category: str | None = None
    skills: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    grader: str | None = None
    """One of ``GRADER_NAMES``; by the answer's form when None."""
    history: tuple[Mapping[str, Any], ...] = ()
    """Earlier messages of the conversation, OpenAI's shape."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Its skills; where it names none, its category."""
        return self.skills or ((self.category,) if self.category else ())
