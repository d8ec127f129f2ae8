"""From what was said to what that says of experts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.errors import InvalidRequest
from domain.plan import CallRole
from domain.routing import RoutingDecision, ScoredExpert
from domain.skills import SkillMatch
from domain.trace import CallRecord, Trace
from orchestrator.feedback.given import feedback_of

DECISION = RoutingDecision(
    "skills", ("a", "b"), (ScoredExpert("a", 0.9, True), ScoredExpert("b", 0.5, True), ScoredExpert("c", 0.2, False)),
    skills=(SkillMatch("addition", 0.8, 1.0),), category="maths",
)  # fmt: skip


def trace(*answered: str, **changes: Any) -> Trace:
    calls = tuple(CallRecord(expert_id, CallRole.CANDIDATE, "ok", 1.0) for expert_id in answered or ("a", "b"))
    made = Trace("r", "auto", "s", 0.0, "ok", DECISION, calls, "vote", answered_by="a", id="t1")
    return replace(made, **changes)


def scores(known: Trace, **given: Any) -> dict[str, float]:
    return dict(feedback_of(known, given, own_id=None, now=1.0).scores)


def test_a_score_is_that_of_the_expert_whose_answer_was_told() -> None:
    event = feedback_of(trace(), {"score": 0.25}, own_id=None, now=5.0, vector=b"\0\0", encoder_id="e")

    assert event.scores == {"a": 0.25}
    assert event.expected == {"a": 0.9}
    assert (event.id, event.skills, event.category, event.router) == ("fb-t1", (("addition", 1.0),), "maths", "skills")
    assert (event.vector, event.encoder_id, event.created_at) == (b"\0\0", "e", 5.0)
    assert scores(trace(), correct=False) == {"a": 0.0}


def test_a_fused_answer_is_nobodys_own_unless_a_candidate_stood_in() -> None:
    assert scores(trace(aggregator="fuse:a"), correct=True) == {}
    assert scores(trace(aggregator="fuse:judge (fallback)"), correct=True) == {"a": 1.0}


def test_whether_an_answer_is_somebodys_own_is_the_modes_to_say() -> None:
    assert scores(trace(aggregator="evidence:a", is_own=False), correct=True) == {}
    assert scores(trace(aggregator="fast_slow:a", is_own=True), correct=True) == {"a": 1.0}


def test_of_experts_that_were_right_every_other_that_answered_was_wrong() -> None:
    assert scores(trace(), correct_expert=["b"]) == {"a": 0.0, "b": 1.0}
    assert scores(trace(), correct_expert=["a", "b"]) == {"a": 1.0, "b": 1.0}
    assert scores(trace(), correct_expert=[]) == {"a": 0.0, "b": 0.0}
    assert scores(trace(), correct_expert=["c"]) == {"a": 0.0, "b": 0.0, "c": 1.0}, "considered, and not asked"


def test_an_expert_that_was_not_considered_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidRequest, match="known are a, b, c"):
        scores(trace(), correct_expert=["zebra"])


def test_an_answer_that_was_never_given_cannot_be_scored() -> None:
    with pytest.raises(InvalidRequest, match="was not answered"):
        scores(trace(status="error"), correct=True)
    assert scores(trace(status="error", calls=()), correct_expert=["a"]) == {"a": 1.0}


def test_a_trace_from_before_answers_had_names_gives_its_only_candidate() -> None:
    assert scores(trace("a", answered_by=None), correct=True) == {"a": 1.0}
    assert scores(trace(answered_by=None), correct=True) == {}


def test_ids_differ_by_request_and_by_the_givers_own() -> None:
    one = feedback_of(trace(), {"correct": True}, own_id="anna", now=1.0).id
    other = feedback_of(trace(), {"correct": True}, own_id="bert", now=1.0).id

    assert len({one, other, "fb-t1"}) == 3
    assert len(feedback_of(trace(id="x" * 128), {"correct": True}, own_id="n" * 128, now=1.0).id) <= 192
