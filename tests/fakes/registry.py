"""Builders that let a test name only what matters, and the registry's ports in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from domain.evaluation import QuestionOutcome
from domain.experts import Backend, ExpertCard, HealthState
from domain.plan import Candidate, ExpertFailure, Outcome
from domain.registry import RegistrySnapshot
from domain.skills import LabelledQuestion
from domain.trace import Trace


def make_card(expert_id: str = "numerals", **changes: Any) -> ExpertCard:
    """A small embedded expert."""
    return replace(ExpertCard(id=expert_id, backend=Backend.EMBEDDED, model=expert_id), **changes)


def make_question(question_id: str = "q1", **changes: Any) -> LabelledQuestion:
    """A question about Roman numerals."""
    question = LabelledQuestion(id=question_id, question="Write XIV in digits.", answer="14", skills=("roman numerals",))
    return replace(question, **changes)


def make_outcome(expert_id: str = "numerals", question_id: str = "q1", *, correct: bool = True, **changes: Any) -> QuestionOutcome:
    """A graded answer to ``make_question``."""
    return replace(QuestionOutcome(expert_id, question_id, skills=("roman numerals",), correct=correct, answer="14"), **changes)


def make_candidate(expert_id: str = "numerals") -> Candidate:
    """An answer, as far as health is concerned."""
    return Candidate(expert_id, choices=())


def make_failure(expert_id: str = "numerals", *, at_fault: bool = True) -> ExpertFailure:
    return ExpertFailure(expert_id, code="expert_unreachable", message="refused", expert_at_fault=at_fault)


class FakeDirectory:
    """``orchestrator.ports.Directory`` with a snapshot and healths that the test sets, and outcomes that it can read."""

    def __init__(self, snapshot: RegistrySnapshot | None = None, health: Mapping[str, HealthState] | None = None) -> None:
        self.current = snapshot or RegistrySnapshot()
        self.health = dict(health or {})
        self.recorded: list[Outcome] = []

    def snapshot(self) -> RegistrySnapshot:
        return self.current

    def health_of(self, expert_id: str) -> HealthState:
        return self.health.get(expert_id, HealthState.CLOSED)

    def begin_trial(self, expert_id: str) -> bool:
        return self.health_of(expert_id) is not HealthState.OPEN

    def record(self, outcomes: Sequence[Outcome]) -> None:
        self.recorded += outcomes


class ListSink:
    """``orchestrator.ports.TraceSink`` that keeps what it is given."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []

    def emit(self, trace: Trace) -> None:
        self.traces.append(trace)
