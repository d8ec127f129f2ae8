"""The object ``consilium``: one shape, whatever happened."""

from __future__ import annotations

from typing import Any

from api.explain import explain_object
from domain.plan import CallRole
from domain.routing import RoutingDecision, ScoredExpert
from domain.skills import SkillMatch
from domain.trace import CallRecord, Trace

CONTRACT = {"request_id", "strategy", "router", "reason", "skills", "considered", "calls", "aggregator", "timings_ms"}
ADDED = {"aggregator_reason", "answered_by", "panel_changed_answer", "sequential_tokens", "selected", "category", "fallback", "detail"}
"""Documented in docs/http-api.md."""

DECISION = RoutingDecision(
    "skills", ("a",), (ScoredExpert("a", 0.9, True, "measured"),), "algebra", (SkillMatch("algebra", 0.8, 1.0),), "maths"
)


def trace(**changes: Any) -> Trace:
    return Trace(**{"request_id": "r", "model": "auto", "strategy": None, "started_at": 0.0, "status": "ok"} | changes)


def test_the_keys_are_those_of_the_contract_and_the_documented_ones() -> None:
    told = explain_object(trace(decision=DECISION, calls=(CallRecord("a", CallRole.CANDIDATE, "ok", 1.0),)))

    assert told.keys() == CONTRACT | ADDED
    assert told["skills"][0].keys() == {"skill", "similarity", "weight"}
    assert told["considered"][0].keys() == {"expert", "score", "selected", "why"}
    assert told["calls"][0].keys() == {"expert", "role", "status", "error", "started_ms", "latency_ms", "usage"}
    assert told["timings_ms"].keys() == {"route", "experts", "aggregate", "total", "overhead", "first_token"}
    assert told["strategy"] == "explicit"


def test_a_request_without_a_decision_has_the_same_keys() -> None:
    """Lists are empty, the rest is null or empty."""
    told = explain_object(trace(status="error"))

    assert told.keys() == CONTRACT | ADDED
    assert told["router"] is None
    assert told["strategy"] is None
    assert told["selected"] == told["skills"] == told["considered"] == []
