"""What a category map of the registry would be: who is kept at a budget, who serves which category, and what that costs. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from domain.errors import InvalidRequest
from domain.evaluation import QuestionOutcome
from domain.experts import Backend, ExpertCard
from domain.outcomes import OutcomeTable
from domain.skills import LabelledQuestion
from routers.learned.base import Features
from routers.learned.category import CategoryModel, CategoryOptions, CategoryRouter
from routers.one_core import one_core

_SHARED = (Backend.EMBEDDED, Backend.VLLM)
"""Backends on which an adapter lives on its base's server."""


def options_of(
    cards: Iterable[ExpertCard], *, budget_b: float | None = None, budget_mb: float | None = None, generalist: str | None = None
) -> CategoryOptions:
    """The category router's options with sizes and servers as the cards tell them. Raises ``InvalidRequest`` for two budgets."""
    if budget_b is not None and budget_mb is not None:
        raise InvalidRequest("give a budget of parameters or of memory, not both", param="budget_mb")
    return CategoryOptions(generalist=generalist, budget_b=budget_b, budget_mb=budget_mb, **card_options(cards))


def card_options(cards: Iterable[ExpertCard]) -> dict[str, Any]:
    """The category router's options that *cards* answer: sizes, and which experts share a server."""
    cards = tuple(cards)
    return {
        "parameters_b": {card.id: card.parameters_b for card in cards if card.parameters_b is not None},
        "memory_mb": {card.id: card.memory_mb for card in cards if card.memory_mb is not None},
        "servers": {card.id: f"{card.backend} {card.adapter_of or card.model}" for card in cards if card.backend in _SHARED},
    }


def measured_table(cards: Sequence[ExpertCard], questions: Sequence[LabelledQuestion], outcomes: Iterable[QuestionOutcome]) -> OutcomeTable:
    """The graded answers of *cards* to *questions*, 1 for a right one; experts without any are left out."""
    row_of = {question.id: row for row, question in enumerate(questions)}
    column_of = {card.id: column for column, card in enumerate(cards)}
    scores = np.full((len(questions), len(cards)), np.nan, np.float32)
    for outcome in outcomes:
        row, column = row_of.get(outcome.question_id), column_of.get(outcome.expert_id)
        if row is not None and column is not None and outcome.error is None:
            scores[row, column] = float(outcome.correct)
    measured = [column for column in range(len(cards)) if not np.isnan(scores[:, column]).all()]
    cells = array("f")
    cells.frombytes(np.ascontiguousarray(scores[:, measured]).tobytes())
    return OutcomeTable(
        questions=tuple(question.question for question in questions),
        expert_ids=tuple(cards[column].id for column in measured),
        scores=cells,
        question_ids=tuple(question.id for question in questions),
        categories=tuple(question.category for question in questions),
        skills=tuple(question.skills for question in questions),
    )


def report(
    cards: Sequence[ExpertCard],
    questions: Sequence[LabelledQuestion],
    outcomes: Iterable[QuestionOutcome],
    vectors: Sequence[bytes],
    options: CategoryOptions,
) -> Mapping[str, Any]:
    """The map as JSON values. *vectors* are the encoder's (float32, little-endian, one length), of *questions* row by row; *options*
    come from ``options_of``.

    Raises ``InvalidRequest`` when nothing is measured, no question has a category, or the budget allows no map.
    """
    table = measured_table(cards, questions, outcomes)
    if not table.expert_ids:
        raise InvalidRequest("no enabled expert is measured on the labelled questions: 'consilium profile run' does it")
    encoded = np.frombuffer(b"".join(vectors), "<f4").reshape(len(table), -1)
    with one_core():
        model = CategoryRouter(options).fit(Features(table.questions, encoded), table, seed=0)
    return {**_told(model), "not_measured": sorted({card.id for card in cards}.difference(table.expert_ids))}


def _told(model: CategoryModel) -> dict[str, Any]:
    found, options = model.map, model.options
    place = {name: column for column, name in enumerate(model.expert_ids)}
    served: dict[str, list[str]] = {name: [] for name in found.kept}
    for category, name in found.expert_of.items():
        served[name].append(category)
    active = [options.parameters_b.get(name) for name in found.expert_of.values()]
    known = [size for size in active if size is not None]
    return {
        "budget": found.budget,
        "unit": options.sizes.unit,
        "total": found.total,
        "average_active_b": float(model.shares @ np.array(known)) if len(known) == len(active) else None,
        "expected_score": found.expected_score,
        "generalist": found.generalist,
        "generalist_score": float(model.table[-1, place[found.generalist]]),
        "classifier": model.kind,
        "classifier_accuracy": model.accuracy,
        "min_confidence": model.min_confidence,
        "fallback_share": model.fallback_share,
        "categories": [
            {
                "category": category,
                "share": float(model.shares[row]),
                "expert": found.expert_of[category],
                "score": float(model.table[row, place[found.expert_of[category]]]),
                "generalist_score": float(model.table[row, place[found.generalist]]),
            }
            for row, category in enumerate(model.categories)
        ],
        "experts": [
            {
                "expert": name,
                "kept": name in found.kept,
                "parameters_b": options.parameters_b.get(name),
                "memory_mb": options.memory_mb.get(name),
                "score": float(model.table[-1, place[name]]),
                "categories": served.get(name, []),
            }
            for name in model.expert_ids
        ],
    }
