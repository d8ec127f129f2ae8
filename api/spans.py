"""A finished trace as the spans of a distributed trace, under the names of OpenTelemetry's conventions for generative AI.

    chat auto                 the request, a server's span: from when it was read to its last byte
    ├── route skills          until the routing decision was there
    │   └── chat helper       a call that the router made
    ├── chat algebra          a call to an expert, a client's span: with the wait for a place, its server and further attempts
    └── aggregate fuse        from the last candidate on, where several are made into one answer
        └── chat reader       the aggregator's own call

A line of a batch is a request like any other. ``route auto`` stands at the top of a request that is only routed, and ``embeddings`` alone.

No text of a conversation, of an answer or of an error comes into a span; docs/telemetry.md lists what does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from domain.chat import Usage
from domain.experts import Backend, ExpertCard
from domain.plan import CallRole
from domain.strategy import AGGREGATOR_NAMES
from domain.trace import CallRecord, Trace
from domain.trace_context import ROUTING_SPAN, TraceContext

MAX_VALUE_CHARS = 256
"""Of one attribute's text: some are names that a caller chose."""
CANCELLED = "cancelled"
"""``error.type`` of what was given up, since nobody waited for it any more."""
MAX_NAMES = 32
"""Experts that one attribute lists."""
CHAT, ROUTE, EMBEDDINGS = "chat", "route", "embeddings"
"""What a request asks for. The second is our own word: OpenTelemetry has none for a decision alone."""
_NS_PER_S, _NS_PER_MS = 1e9, 1e6
_AGGREGATION_SPAN = "aggregation"
_FALLBACK = " (fallback)"
_READERS = frozenset({CallRole.AGGREGATOR, CallRole.JUDGE})

Value = str | bool | int | float | Sequence[str]
CardOf = Callable[[str], ExpertCard | None]


class SpanKind(StrEnum):
    SERVER = "server"
    INTERNAL = "internal"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Span:
    """One span. Times are nanoseconds since the epoch."""

    name: str
    kind: SpanKind
    context: TraceContext
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    error_type: str | None = None
    """Machine-readable code of what failed; None where nothing did."""


def spans_of(trace: Trace, card_of: CardOf, *, operation: str = CHAT) -> list[Span]:
    """The spans of *trace*, the request's first; none where it has no context. *card_of* knows the experts, None for one that is gone;
    *operation* is what was asked for."""
    if trace.context is None:
        return []
    clock = _Clock(trace.started_at)
    routing = _routing(trace, trace.context, clock)
    aggregation = _aggregation(trace, trace.context, clock)
    spans = [_request(trace, trace.context, clock, operation), *(span for span in (routing, aggregation) if span is not None)]
    for number, call in enumerate(trace.calls):
        above = trace.context
        if routing is not None and call.role is CallRole.ANNOTATOR:
            above = routing.context
        elif aggregation is not None and call.role in _READERS and clock.at(call.started_ms or 0.0) >= aggregation.start_ns:
            above = aggregation.context
        spans.append(_call(call, number, above, clock, card_of(call.expert_id)))
    return spans


def embeddings_span(
    context: TraceContext,
    *,
    request_id: str,
    model: str | None,
    started_at: float,
    seconds: float,
    num_texts: int | None = None,
    num_tokens: int | None = None,
    dimensions: int | None = None,
    encoding_format: str | None = None,
    key_id: str | None = None,
    error_type: str | None = None,
) -> Span:
    """The one span of an embeddings request. *started_at*: seconds since the epoch. *model*: None where there is none of that name, which
    would make a span's name each."""
    attributes: dict[str, Value | None] = {
        "gen_ai.operation.name": EMBEDDINGS,
        "gen_ai.provider.name": "consilium",
        "gen_ai.request.model": model,
        "gen_ai.request.encoding_formats": None if encoding_format is None else (encoding_format,),
        "gen_ai.embeddings.dimension.count": dimensions,
        "gen_ai.usage.input_tokens": num_tokens,
        "consilium.request_id": request_id,
        "consilium.num_texts": num_texts,
        "consilium.key_id": key_id,
        "consilium.status": "ok" if error_type is None else CANCELLED if error_type == CANCELLED else "error",
    }
    clock = _Clock(started_at)
    name = EMBEDDINGS if model is None else f"{EMBEDDINGS} {model}"
    return Span(name, SpanKind.SERVER, context, clock.at(0.0), clock.at(seconds * 1e3), _told(attributes, error_type), error_type)


@dataclass(frozen=True, slots=True)
class _Clock:
    """Milliseconds after the request's beginning, in nanoseconds since the epoch."""

    started_at: float

    def at(self, milliseconds: float) -> int:
        return round(self.started_at * _NS_PER_S + milliseconds * _NS_PER_MS)


def _request(trace: Trace, context: TraceContext, clock: _Clock, operation: str) -> Span:
    asked = trace.strategy or (trace.model if trace.decision is not None else None)  # what nobody knows would make a name each
    attributes: dict[str, Value | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "consilium",
        "gen_ai.request.model": trace.model,
        "gen_ai.request.stream": trace.stream,
        "gen_ai.conversation.id": trace.session_id,
        **_tokens(trace.usage),
        "consilium.request_id": trace.request_id,
        "consilium.trace": trace.id,
        "consilium.strategy": trace.strategy,
        "consilium.aggregator": trace.aggregator,
        "consilium.answered_by": trace.answered_by,
        "consilium.num_calls": trace.num_calls,
        "consilium.overhead_ms": trace.timings.overhead,
        "consilium.status": trace.status,
        "consilium.key_id": trace.key_id,
        "gen_ai.response.time_to_first_chunk": _seconds(trace.timings.first_token) if trace.stream else None,
    }
    error = None if trace.status == "ok" else trace.error_code or trace.status
    name = operation if asked is None else f"{operation} {asked}"
    return Span(name, SpanKind.SERVER, context, clock.at(0.0), clock.at(trace.timings.total), _told(attributes, error), error)


def _routing(trace: Trace, context: TraceContext, clock: _Clock) -> Span | None:
    decision, timings = trace.decision, trace.timings
    if timings.routed is None and decision is None:
        return None
    attributes: dict[str, Value | None] = {}
    if decision is not None:
        attributes = {
            "consilium.router": decision.router,
            "consilium.selected": decision.selected[:MAX_NAMES],
            "consilium.num_considered": len(decision.considered),
            "consilium.skills": tuple(match.skill[:MAX_VALUE_CHARS] for match in decision.skills[:MAX_NAMES]),
            "consilium.fallback": decision.fallback,
        }
    error = None if decision is not None else trace.error_code or trace.status
    name = "route" if decision is None else f"route {decision.router}"
    routed = timings.routed or 0.0  # of a batch's line long before its first call: the span says what, its length nothing
    start, end = clock.at(max(0.0, routed - timings.route)), clock.at(routed)
    return Span(name, SpanKind.INTERNAL, context.named_child(ROUTING_SPAN), start, end, _told(attributes, error), error)


def _aggregation(trace: Trace, context: TraceContext, clock: _Clock) -> Span | None:
    """From the end of the last call that is none of a reader's to the answer's; None where no answers are put together."""
    if trace.aggregator is None:
        return None
    how = trace.aggregator.removesuffix(_FALLBACK)
    name, _, expert_id = how.partition(":")
    reads = any(call.role is CallRole.AGGREGATOR for call in trace.calls)
    if not reads and name not in AGGREGATOR_NAMES:
        return None
    read = [_end_ms(call) for call in trace.calls if call.role not in _READERS and call.role is not CallRole.ANNOTATOR]
    start_ms = min(max(read, default=0.0), trace.timings.total)
    attributes: dict[str, Value | None] = {
        "consilium.aggregator": name,
        "consilium.aggregated_by": expert_id or None,
        "consilium.fallback": trace.aggregator.endswith(_FALLBACK),
    }
    start, end = clock.at(start_ms), clock.at(trace.timings.total)
    return Span(f"aggregate {name}", SpanKind.INTERNAL, context.named_child(_AGGREGATION_SPAN), start, end, _told(attributes))


def _call(call: CallRecord, number: int, above: TraceContext, clock: _Clock, card: ExpertCard | None) -> Span:
    error = None if call.status == "ok" else call.error_code or call.status
    span_id = call.span_id or above.named_child(f"call {number}").span_id
    context = TraceContext(above.trace_id, span_id, above.span_id, above.sampled, above.state)
    attributes: dict[str, Value | None] = {
        "gen_ai.operation.name": CHAT,
        "gen_ai.request.model": call.expert_id if card is None else card.model,
        **_server(card),
        **_tokens(call.usage),
        "gen_ai.response.time_to_first_chunk": _seconds(call.first_token_ms),
        "consilium.expert": call.expert_id,
        "consilium.role": call.role.value,
        "consilium.status": call.status,
        "consilium.stage": call.stage,
        "consilium.confidence": call.confidence,
    }
    start, end = clock.at(call.started_ms or 0.0), clock.at(_end_ms(call))
    return Span(f"chat {call.expert_id}", SpanKind.CLIENT, context, start, end, _told(attributes, error), error)


def _end_ms(call: CallRecord) -> float:
    return (call.started_ms or 0.0) + call.latency_ms


def _server(card: ExpertCard | None) -> dict[str, Value | None]:
    """Who serves the expert, and where, as far as its card tells."""
    if card is None:
        return {}
    match card.backend:
        case Backend.EMBEDDED:
            return {"gen_ai.provider.name": "consilium"}
        case Backend.VLLM:
            return {"gen_ai.provider.name": "vllm"}
        case Backend.LITELLM:
            provider = card.model.partition("/")[0]
        case Backend.OPENAI:
            provider = "openai"
    parts = urlsplit(card.base_url or "")
    return {"gen_ai.provider.name": provider, "server.address": parts.hostname, "server.port": _port(parts.netloc, parts.scheme)}


def _port(netloc: str, scheme: str) -> int | None:
    number = netloc.rpartition("@")[2].rpartition("]")[2].rpartition(":")[2]
    return int(number) if number.isdigit() else {"http": 80, "https": 443}.get(scheme)


def _tokens(usage: Usage) -> dict[str, Value | None]:
    if not usage.total_tokens:
        return {}
    return {"gen_ai.usage.input_tokens": usage.prompt_tokens, "gen_ai.usage.output_tokens": usage.completion_tokens}


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1e3


def _told(attributes: Mapping[str, Value | None], error: str | None = None) -> dict[str, Value]:
    """What is known, texts cut."""
    known = {name: value[:MAX_VALUE_CHARS] if isinstance(value, str) else value for name, value in attributes.items() if value is not None}
    return known if error is None else {**known, "error.type": error}
