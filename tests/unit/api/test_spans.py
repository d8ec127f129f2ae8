"""A finished trace as spans: which there are, below which, from when to when, and what they say."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from api.spans import MAX_VALUE_CHARS, ROUTE, Span, SpanKind, embeddings_span, spans_of
from domain.plan import CallRole
from domain.trace import CallRecord, Timings, Trace
from tests.fakes.spanned import ALGEBRA, CONTEXT, READER, SECRET, STARTED, WORDS, card_of, trace


def told(made: Trace) -> dict[str, Span]:
    spans = spans_of(made, card_of)
    assert len({span.context.span_id for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def milliseconds(span: Span) -> tuple[float, float]:
    """After the request's beginning."""
    return tuple(round((at - STARTED * 1e9) / 1e6, 3) for at in (span.start_ns, span.end_ns))  # type: ignore[return-value]


def test_without_a_context_there_are_none() -> None:
    assert spans_of(trace(ALGEBRA, context=None), card_of) == []


def test_one_expert_is_a_request_a_routing_and_a_call() -> None:
    spans = told(trace(ALGEBRA))

    request, routing, call = spans["chat auto"], spans["route skills"], spans["chat algebra"]
    assert list(spans) == ["chat auto", "route skills", "chat algebra"]
    assert [span.kind for span in (request, routing, call)] == [SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.CLIENT]
    assert request.context == CONTEXT
    assert {span.context.trace_id for span in spans.values()} == {CONTEXT.trace_id}
    assert routing.context.parent_id == call.context.parent_id == CONTEXT.span_id
    assert call.context.span_id == ALGEBRA.span_id, "its server continues below this very span"
    assert (milliseconds(request), milliseconds(routing), milliseconds(call)) == ((0.0, 80.0), (2.0, 10.0), (12.0, 42.0))


def test_attributes_follow_the_conventions() -> None:
    spans = told(trace(ALGEBRA, stream=True, session_id="s-1", key_id="team"))

    assert spans["chat auto"].attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "consilium",
        "gen_ai.request.model": "auto",
        "gen_ai.request.stream": True,
        "gen_ai.conversation.id": "s-1",
        "gen_ai.usage.input_tokens": 60,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.response.time_to_first_chunk": 0.057,
        "consilium.request_id": "req-1",
        "consilium.trace": spans["chat auto"].attributes["consilium.trace"],
        "consilium.strategy": "auto",
        "consilium.aggregator": "single",
        "consilium.answered_by": "algebra",
        "consilium.num_calls": 1,
        "consilium.overhead_ms": 7.0,
        "consilium.status": "ok",
        "consilium.key_id": "team",
    }
    assert spans["route skills"].attributes == {
        "consilium.router": "skills",
        "consilium.selected": ("algebra", "words"),
        "consilium.num_considered": 3,
        "consilium.skills": ("sums",),
        "consilium.fallback": False,
    }
    assert spans["chat algebra"].attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "algebra-7b",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 3,
        "server.address": "10.0.0.7",
        "server.port": 8000,
        "consilium.expert": "algebra",
        "consilium.role": "candidate",
        "consilium.status": "ok",
    }


@pytest.mark.parametrize(
    ("expert", "expected"),
    [
        ("words", {"gen_ai.provider.name": "anthropic", "server.address": "api.example.com", "server.port": 443}),
        ("reader", {"gen_ai.provider.name": "vllm"}),
        ("helper", {"gen_ai.provider.name": "consilium"}),
        ("gone", {}),
    ],
)
def test_who_serves_an_expert(expert: str, expected: dict[str, Any]) -> None:
    attributes = told(trace(replace(ALGEBRA, expert_id=expert)))[f"chat {expert}"].attributes

    assert {name: attributes[name] for name in attributes if name.startswith("server.") or name == "gen_ai.provider.name"} == expected


def test_a_panel_has_an_aggregation_with_the_readers_call_below() -> None:
    spans = told(trace(ALGEBRA, WORDS, READER, aggregator="fuse:reader"))

    aggregation = spans["aggregate fuse"]
    assert aggregation.context.parent_id == CONTEXT.span_id
    assert spans["chat reader"].context.parent_id == aggregation.context.span_id
    assert {spans[f"chat {name}"].context.parent_id for name in ("algebra", "words")} == {CONTEXT.span_id}
    assert milliseconds(aggregation) == (52.0, 80.0), "from the last candidate's end to the answer's"
    assert milliseconds(spans["chat reader"]) == (53.0, 78.0)
    assert spans["chat reader"].attributes["gen_ai.response.time_to_first_chunk"] == 0.004
    assert aggregation.attributes == {"consilium.aggregator": "fuse", "consilium.aggregated_by": "reader", "consilium.fallback": False}


def test_a_vote_calls_nobody_and_a_fallback_is_told() -> None:
    spans = told(trace(ALGEBRA, aggregator="vote (fallback)"))

    assert spans["aggregate vote"].attributes == {"consilium.aggregator": "vote", "consilium.fallback": True}


def test_a_judge_between_candidates_hangs_below_the_request() -> None:
    """Of a cascade, whose stages are judged before the next is asked."""
    judge = replace(READER, expert_id="judge", role=CallRole.JUDGE, started_ms=13.0, latency_ms=5.0)
    spans = told(
        trace(replace(ALGEBRA, latency_ms=1.0, stage=1, confidence=0.25), judge, replace(WORDS, started_ms=20.0), aggregator="cascade:x")
    )

    assert not [name for name in spans if name.startswith("aggregate")]
    assert spans["chat judge"].context.parent_id == CONTEXT.span_id
    assert (spans["chat algebra"].attributes["consilium.stage"], spans["chat algebra"].attributes["consilium.confidence"]) == (1, 0.25)


def test_the_routers_own_calls_hang_below_the_routing() -> None:
    helper = CallRecord("helper", CallRole.ANNOTATOR, "ok", 6.0, started_ms=3.0)
    spans = told(trace(helper, helper, ALGEBRA))
    made = spans_of(trace(helper, helper, ALGEBRA), card_of)

    assert [span.context.parent_id for span in made if span.name == "chat helper"] == [spans["route skills"].context.span_id] * 2


def test_a_routing_of_long_ago_is_told_without_a_length() -> None:
    """Of a batch's line, which was routed before the first of its calls had its turn."""
    spans = told(trace(ALGEBRA, timings=Timings(total=80.0)))

    assert milliseconds(spans["route skills"]) == (0.0, 0.0)
    assert spans["route skills"].attributes["consilium.selected"] == ("algebra", "words")


def test_a_decision_alone_is_no_chat() -> None:
    made = spans_of(trace(aggregator=None), card_of, operation=ROUTE)

    assert [span.name for span in made] == ["route auto", "route skills"]
    assert made[0].attributes["gen_ai.operation.name"] == "route"


def test_embeddings_of_a_model_that_is_not_there_name_none() -> None:
    span = embeddings_span(CONTEXT, request_id="r", model=None, started_at=STARTED, seconds=0.25, error_type="model_not_found")

    assert (span.name, span.error_type, milliseconds(span)) == ("embeddings", "model_not_found", (0.0, 250.0))
    assert span.attributes["consilium.status"] == "error"


def test_a_failure_is_told_by_its_code() -> None:
    spans = told(trace(WORDS, status="error", error_code="all_experts_failed", error_message=SECRET, aggregator=None, answer=None))

    assert (spans["chat auto"].error_type, spans["chat auto"].attributes["error.type"]) == ("all_experts_failed",) * 2
    assert (spans["chat words"].error_type, spans["chat words"].attributes["error.type"]) == ("expert_timeout",) * 2
    assert spans["route skills"].error_type is None


def test_a_request_that_was_never_routed_names_no_model_in_its_name() -> None:
    """Names are for grouping: what callers make up must not become one each."""
    undecided = trace(
        status="error",
        error_code="model_not_found",
        model="made up",
        strategy=None,
        decision=None,
        timings=Timings(total=1.0),
        aggregator=None,
    )

    assert list(told(undecided)) == ["chat"]
    assert told(undecided)["chat"].attributes["gen_ai.request.model"] == "made up"


def test_no_words_of_the_conversation_come_into_a_span() -> None:
    spans = told(trace(ALGEBRA, WORDS, replace(READER, text=SECRET, note=SECRET), aggregator="fuse:reader", aggregator_reason=SECRET))

    assert SECRET not in repr(spans)
    assert "password" not in repr(spans), "nor do a server's credentials"


def test_texts_are_cut() -> None:
    long = "x" * 10_000

    assert all(
        len(value) <= MAX_VALUE_CHARS
        for span in told(trace(ALGEBRA, model=long, session_id=long)).values()
        for value in span.attributes.values()
        if isinstance(value, str)
    )


def test_every_call_of_a_trace_is_a_span() -> None:
    """Whatever came of it, and also where no span was told to its server."""
    roles = [
        replace(ALGEBRA, role=role, status=status, span_id=None) for role in CallRole for status in ("ok", "error", "cancelled", "skipped")
    ]
    spans = spans_of(trace(*roles), card_of)

    assert len([span for span in spans if span.kind is SpanKind.CLIENT]) == len(roles)
    assert {field.name for field in fields(Span)} == {"name", "kind", "context", "start_ns", "end_ns", "attributes", "error_type"}
