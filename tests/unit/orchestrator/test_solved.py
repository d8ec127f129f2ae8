"""What feedback lets into the memory: only what somebody called right, that stands for itself, and was asked to be kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.feedback import Feedback
from domain.memory import Demonstration, Recollection
from domain.routing import RoutingDecision
from domain.trace import HASH_PREFIX, Trace
from orchestrator.feedback.solved import found_right, may_write, solved_of

QUESTION = {"role": "user", "content": "What is 6 * 7?"}
EVENT = Feedback("fb-1", "r1", "t1", 5.0, {"correct": True}, skills=(("multiplication", 1.0),))


def answered(**changes: Any) -> Trace:
    trace = Trace(
        "r1", "auto", "solver", 1.0, "ok", messages=(QUESTION,), answer="<think>6 * 7</think> 42", answered_by="a", is_own=True,
        key_id="team", id="t1",
    )  # fmt: skip
    return replace(trace, **changes)


def test_a_question_that_was_answered_right_is_kept_with_its_answer_and_without_its_reasoning() -> None:
    kept = solved_of(answered(), EVENT, now=9.0)

    assert kept is not None
    assert (kept.tenant, kept.question, kept.answer, kept.source) == ("team", "What is 6 * 7?", "42", "feedback")
    assert (kept.skills, kept.expert_id, kept.trace_id, kept.feedback_id) == (("multiplication",), "a", "t1", "fb-1")
    assert kept.created_at == 9.0


def test_a_system_message_is_no_part_of_a_problem() -> None:
    kept = solved_of(answered(messages=({"role": "system", "content": "You are a calculator."}, QUESTION)), EVENT, now=9.0)

    assert kept is not None
    assert kept.question == "What is 6 * 7?"


IMAGE = {"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:"}}]}


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": None, "answer": None},
        {"answer": None},
        {"answer": "<think>only thought</think>"},
        {"status": "error"},
        {"messages": (QUESTION, {"role": "assistant", "content": "42"}, {"role": "user", "content": "and doubled?"})},
        {"messages": (IMAGE,)},
        {"messages": ({"role": "user", "content": "   "},)},
        {"messages": ({"role": "user", "content": "x" * 4001},)},
        {"answer": "x" * 8001},
        {"messages": ({"role": "user", "content": HASH_PREFIX + "0f"},), "answer": HASH_PREFIX + "1f"},
    ],
)
def test_what_does_not_stand_for_itself_or_is_not_there_as_it_was_said_is_not_kept(changes: dict[str, Any]) -> None:
    assert solved_of(answered(**changes), EVENT, now=9.0) is None


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ({"correct": True}, True),
        ({"correct": False}, False),
        ({"score": 1.0}, True),
        ({"score": 0.9}, True),
        ({"score": 0.7}, None),
        ({"score": 0.4}, False),
        ({"correct_expert": ["a", "b"]}, True),
        ({"correct_expert": ["b"]}, False),
        ({"correct_expert": []}, False),
    ],
)
def test_what_was_said_of_the_answer(given: dict[str, Any], right: bool | None) -> None:
    assert found_right(answered(), given) is right


def test_which_expert_was_right_says_nothing_of_an_answer_that_is_nobodys_own() -> None:
    assert found_right(answered(is_own=False), {"correct_expert": ["a"]}) is None


@pytest.mark.parametrize(("writes", "may"), [(True, True), (False, False)])
def test_only_where_it_was_asked_for(writes: bool, may: bool) -> None:
    told = Recollection((Demonstration("mem-1", "q", "a", 0.8),), writes=writes).told
    decision = RoutingDecision("skills", ("a",), detail={"memory": dict(told)})

    assert may_write(answered(decision=decision)) is may
    assert may_write(answered()) is False
    assert may_write(answered(decision=replace(decision, detail={"memory": "of another shape"}))) is False
