"""The registry's outcomes as a table to evaluate on."""

from __future__ import annotations

import math
from typing import Any

from api.cli.eval_registry import outcomes_from

QUESTIONS = [{"id": name, "question": f"{name}?", "category": "sums"} for name in ("q1", "q2")]


def outcome(question: str, latency_ms: float, **changes: Any) -> dict[str, Any]:
    made = {"expert_id": "a", "question_id": question, "correct": True, "answer": "4", "error": None, "latency_ms": latency_ms}
    return made | changes


def test_a_latency_of_nothing_is_one_that_nobody_took_down() -> None:
    """The zoo's outcomes have none: a column of zeros would say that every expert answers at once."""
    some = outcomes_from([outcome("q1", 0.0), outcome("q2", 7.0)], QUESTIONS, {"a": 1}).table
    none = outcomes_from([outcome("q1", 0.0)], QUESTIONS, {"a": 1}).table

    assert some.latency_ms is not None
    assert math.isnan(some.latency_ms[0])
    assert some.latency_ms[1] == 7.0
    assert none.latency_ms is None


def test_what_is_no_measurement_is_left_out() -> None:
    rows = [outcome("q1", 1.0), outcome("q2", 1.0, error="timeout"), outcome("gone", 1.0), outcome("q2", 1.0, expert_id="removed")]

    assert outcomes_from(rows, QUESTIONS, {"a": 1}).table.question_ids == ("q1",)
