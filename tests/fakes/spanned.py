"""A finished trace with a span's context, and the cards of its experts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from domain.chat import Usage
from domain.experts import Backend, ExpertCard
from domain.plan import CallRole
from domain.routing import RoutingDecision, ScoredExpert
from domain.skills import SkillMatch
from domain.trace import CallRecord, Timings, Trace
from domain.trace_context import TraceContext

CONTEXT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7")
STARTED = 1_700_000_000.5
SECRET = "what the caller asked"
"""Stands wherever a trace may hold words of the conversation."""
DECISION = RoutingDecision(
    "skills",
    ("algebra", "words"),
    (ScoredExpert("algebra", 0.9, True, SECRET), ScoredExpert("words", 0.5, True, "x"), ScoredExpert("c", 0.1, False, "y")),
    SECRET,
    (SkillMatch("sums", 0.9, 1.0),),
)
ALGEBRA = CallRecord("algebra", CallRole.CANDIDATE, "ok", 30.0, Usage(10, 3), started_ms=12.0, span_id="1111111111111111")
WORDS = CallRecord(
    "words", CallRole.CANDIDATE, "error", 40.0, error=f"expert_timeout: {SECRET}", started_ms=12.0, span_id="2222222222222222"
)
READER = CallRecord(
    "reader", CallRole.AGGREGATOR, "ok", 25.0, Usage(50, 7), started_ms=53.0, first_token_ms=4.0, span_id="3333333333333333"
)


def card_of(expert_id: str) -> ExpertCard | None:
    """One card of each backend; None for any other expert."""
    known = {
        "algebra": ExpertCard("algebra", Backend.OPENAI, "algebra-7b", base_url="http://user:password@10.0.0.7:8000/v1"),
        "words": ExpertCard("words", Backend.LITELLM, "anthropic/claude", base_url="https://api.example.com/v1"),
        "reader": ExpertCard("reader", Backend.VLLM, "/models/reader"),
        "helper": ExpertCard("helper", Backend.EMBEDDED, "helper"),
    }
    return known.get(expert_id)


def trace(*calls: CallRecord, **changes: Any) -> Trace:
    """A request that was routed within 10 ms and answered after 80, with *calls*."""
    made = Trace(
        "req-1",
        "auto",
        "auto",
        STARTED,
        "ok",
        DECISION,
        calls,
        "single",
        timings=Timings(8.0, 40.0, 25.0, 80.0, 7.0, first_token=57.0, routed=10.0),
        usage=Usage(60, 10),
        messages=({"role": "user", "content": SECRET},),
        answer=SECRET,
        answered_by="algebra",
        context=CONTEXT,
    )
    return replace(made, **changes)
