"""What the chaos run would not let pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.chaos_checks import BatchSeen, Question, Seen, Stored, judge

QUESTION = Question("m-1", "next best", "consilium/alphas", frozenset({"alpha", "alpha-twin"}), is_owed=True, deadline_s=20.0)
SERVED = Seen(QUESTION, 0.5, 200, text="I am alpha and was asked #m-1.", answered_by="alpha", is_whole=True)
ERROR = {"message": "m", "type": "server_error", "param": None, "code": "all_experts_failed"}
TRACED = {"m-1": [Stored("ok", "alpha")]}
STREAMED = replace(QUESTION, is_streamed=True)


LISTS = ("wrong", "hung", "untyped", "lost_traces", "lost_lines", "unserved", "held")


def missed(seen: Seen, stored: Any = TRACED) -> set[str]:
    verdict = judge([seen], [], stored)
    return {name for name in LISTS if getattr(verdict, name)}


def test_a_right_answer_passes() -> None:
    verdict = judge([SERVED], [], TRACED)

    assert all(verdict.targets.values())
    assert (verdict.num_owed, verdict.served_share) == (1, 1.0)


@pytest.mark.parametrize(
    ("seen", "stored", "lists"),
    [
        (replace(SERVED, text="I am beta and was asked #m-1.", answered_by="beta"), {"m-1": [Stored("ok", "beta")]}, {"wrong"}),
        (replace(SERVED, text="I am alpha and was asked #m-2."), TRACED, {"wrong"}),
        (replace(SERVED, text="I am alpha-twin and was asked #m-1."), TRACED, {"wrong"}),
        (replace(SERVED, text="I am alpha and"), TRACED, {"wrong"}),
        (SERVED, {"m-1": [Stored("ok", "alpha-twin")]}, {"wrong"}),
        (SERVED, {}, {"lost_traces"}),
        (SERVED, {"m-1": [Stored("ok", "alpha")] * 2}, {"lost_traces"}),
        (SERVED, {"m-1": [Stored("error", None)]}, {"lost_traces"}),
        (replace(SERVED, took_s=31.0), TRACED, {"hung"}),
        (Seen(QUESTION, 1.0, 502, ERROR), {"m-1": [Stored("error", None)]}, {"unserved"}),
        (Seen(QUESTION, 1.0, 502, ERROR), {}, {"unserved", "lost_traces"}),
        (Seen(QUESTION, 1.0, 500, {**ERROR, "code": "internal_error"}), {}, {"unserved", "untyped"}),
        (Seen(QUESTION, 1.0, 503, {"message": "m"}), {}, {"unserved", "untyped"}),
        (Seen(QUESTION, 1.0, trouble="ReadError: reset"), {}, {"unserved", "untyped"}),
        (Seen(STREAMED, 1.0, 200, ERROR, text="I am"), {"m-1": [Stored("error", None)]}, set()),
        (Seen(STREAMED, 1.0, 200, text="I am"), {"m-1": [Stored("error", None)]}, {"unserved", "untyped"}),
    ],
)
def test_what_is_wrong_is_found(seen: Seen, stored: Any, lists: set[str]) -> None:
    assert missed(seen, stored) == lists


def line(custom_id: str, text: str) -> dict[str, Any]:
    body = {"choices": [{"message": {"content": text}}]}
    return {"custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}


ANSWERED = line("b-1", "I am delta and was asked #b-1.")
FAILED = {"custom_id": "b-1", "response": {"status_code": 502, "body": {"error": ERROR}}, "error": None}


@pytest.mark.parametrize(
    ("status", "results", "found"),
    [
        ("completed", [ANSWERED], []),
        ("completed", [FAILED], []),
        ("completed", [], ["lost_lines"]),
        ("completed", [ANSWERED, FAILED], ["lost_lines"]),
        ("completed", [ANSWERED, line("b-2", "")], ["wrong", "lost_lines"]),
        ("completed", [line("b-1", "I am delta and was asked #b-2.")], ["wrong"]),
        ("completed", [line("b-1", "I am alpha and was asked #b-1.")], ["wrong"]),
        ("completed", [{"custom_id": "b-1", "response": None, "error": None}], ["untyped"]),
        ("not over in time", [], ["lost_lines"]),
    ],
)
def test_lines_of_batches(status: str, results: list[dict[str, Any]], found: list[str]) -> None:
    verdict = judge([], [BatchSeen("b", status, {"b-1": frozenset({"delta"})}, results)], {})

    assert [name for name in ("wrong", "lost_lines", "untyped") if getattr(verdict, name)] == found


def test_calls_that_nobody_waits_for_are_found() -> None:
    assert not judge([], [], {}, ["alpha"]).targets["no connection to an expert held"]
