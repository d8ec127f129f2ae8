"""Builders and a store for tests of measurements."""

from __future__ import annotations

from collections.abc import Sequence

from domain.evaluation import QuestionOutcome
from domain.experts import Backend, ExpertCard, ExpertRole
from domain.skills import LabelledQuestion


class MemoryOutcomes:
    """Keeps outcomes as the profile store does: a later one replaces an earlier one of the same run, expert and question."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str, str], QuestionOutcome] = {}
        self.batches: list[int] = []
        """How many outcomes came with each write."""
        self.failures: list[Exception] = []
        """Raised by the next writes, one each."""

    async def outcomes(self, run_id: str | None = None) -> Sequence[QuestionOutcome]:
        return [outcome for (owner, _, _), outcome in self.kept.items() if run_id in (None, owner)]

    async def record_outcomes(self, run_id: str, outcomes: Sequence[QuestionOutcome]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(len(outcomes))
        self.kept.update({(run_id, outcome.expert_id, outcome.question_id): outcome for outcome in outcomes})


def make_expert(
    expert_id: str, *, max_in_flight: int = 32, roles: frozenset[ExpertRole] = frozenset({ExpertRole.CANDIDATE}), prompt: str = "moa"
) -> ExpertCard:
    """An expert that no one runs."""
    return ExpertCard(expert_id, Backend.OPENAI, "model", max_in_flight=max_in_flight, roles=roles, aggregation_prompt=prompt)


def make_questions(count: int, *, category: str = "sums", skills: tuple[str, ...] = ()) -> list[LabelledQuestion]:
    """``n+1?`` for n from 0, with ids ``q0``, ``q1``, …"""
    return [LabelledQuestion(id=f"q{n}", question=f"{n}+1?", answer=str(n + 1), category=category, skills=skills) for n in range(count)]
