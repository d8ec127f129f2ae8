"""Builders that let a test name only what matters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from domain.evaluation import QuestionOutcome
from domain.experts import Backend, ExpertCard
from domain.plan import Candidate, ExpertFailure
from domain.skills import LabelledQuestion


def make_card(expert_id: str = "numerals", **changes: Any) -> ExpertCard:
    """A small embedded expert."""
    return replace(ExpertCard(id=expert_id, backend=Backend.EMBEDDED, model=expert_id), **changes)


def make_question(question_id: str = "q1", **changes: Any) -> LabelledQuestion:
    """A question about Roman numerals."""
    question = LabelledQuestion(id=question_id, question="Write XIV in digits.", answer="14", skills=("roman numerals",))
    return replace(question, **changes)


def make_outcome(expert_id: str = "numerals", question_id: str = "q1", *, correct: bool = True, **changes: Any) -> QuestionOutcome:
    """A graded answer to ``make_question``, of the expert of ``make_card``."""
    made = QuestionOutcome(
        expert_id,
        question_id,
        skills=("roman numerals",),
        correct=correct,
        answer="14",
        expert_fingerprint=make_card(expert_id).fingerprint,
    )
    return replace(made, **changes)


def make_candidate(expert_id: str = "numerals") -> Candidate:
    """An answer, as far as health is concerned."""
    return Candidate(expert_id, choices=())


def make_failure(expert_id: str = "numerals", *, at_fault: bool = True) -> ExpertFailure:
    return ExpertFailure(expert_id, code="expert_unreachable", message="refused", expert_at_fault=at_fault)


@contextmanager
def said_in_log(logger_name: str, text: str) -> Iterator[asyncio.Event]:
    """An event that is set when *logger_name* says something with *text*: a fact to wait for, instead of time."""
    said = asyncio.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if text in record.getMessage():
                said.set()

    listener = Listener()
    logging.getLogger(logger_name).addHandler(listener)
    try:
        yield said
    finally:
        logging.getLogger(logger_name).removeHandler(listener)
