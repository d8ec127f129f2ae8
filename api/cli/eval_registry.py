"""The registry's outcomes and cards, as the admin REST shows them, in the shapes that evaluations take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.cli.failures import bad_input
from evaluation.outcomes.files import ExpertCost
from evaluation.outcomes.rows import OutcomeRow, Outcomes, outcomes_of

Json = Mapping[str, Any]


def outcomes_from(measured: Sequence[Json], questions: Sequence[Json], versions: Mapping[str, int]) -> Outcomes:
    """A table of the graded answers that count, with their questions, of the experts in *versions*.

    Raises ``CommandFailed`` when there is none. An answer with an error is no measurement, one to a question that is gone has no text.
    """
    texts = {question["id"]: question for question in questions}
    rows: dict[str, OutcomeRow] = {}
    for outcome in measured:
        question = texts.get(outcome["question_id"])
        if question is None or outcome["error"] is not None or outcome["expert_id"] not in versions:
            continue
        row = rows.setdefault(question["id"], _row(question))
        row.scores[outcome["expert_id"]] = float(outcome["correct"])
        if outcome["latency_ms"] > 0:  # else nobody took it down
            row.latency_ms[outcome["expert_id"]] = float(outcome["latency_ms"])
        row.answers[outcome["expert_id"]] = outcome["answer"]
    if not rows:
        raise bad_input("nothing is measured in this registry yet: 'consilium profile run' does it")
    return outcomes_of(list(rows.values()), source="the registry")


def costs_of(cards: Sequence[Json]) -> dict[str, ExpertCost]:
    """What each card declares. A price of nothing is no price: it says that nobody wrote one down.

    One number stands for a card's two prices: three quarters of the tokens of chat traffic are prompt.
    """
    costs = {}
    for card in cards:
        price = card.get("price") or {}
        blended = 0.75 * price.get("prompt", 0.0) + 0.25 * price.get("completion", 0.0)
        costs[card["id"]] = ExpertCost(card["id"], blended or None, card.get("parameters_b"))
    return costs


def _row(question: Json) -> OutcomeRow:
    return OutcomeRow(
        question=question["question"],
        id=question["id"],
        category=question.get("category"),
        skills=tuple(question.get("skills") or ()),
    )
