"""Spans over OTLP, OpenTelemetry's protocol, as protobuf over HTTP (https://opentelemetry.io/docs/specs/otlp/)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags, TraceState
from opentelemetry.trace import SpanKind as OtlpKind
from opentelemetry.trace.status import Status, StatusCode

from api.spans import Span, SpanKind

_PATH = "/v1/traces"
_KINDS = {SpanKind.SERVER: OtlpKind.SERVER, SpanKind.INTERNAL: OtlpKind.INTERNAL, SpanKind.CLIENT: OtlpKind.CLIENT}


class OtlpCollector:
    """A collector at *endpoint* (``api.span_exporter.Collector``). The library tries again what may pass, within *timeout_s*."""

    def __init__(self, endpoint: str, *, headers: Mapping[str, str], timeout_s: float, version: str) -> None:
        base = endpoint.rstrip("/")
        self._exporter = OTLPSpanExporter(
            endpoint=base if base.endswith(_PATH) else base + _PATH,
            headers=dict(headers),
            timeout=timeout_s,
            compression=Compression.Gzip,
        )
        # It says for every attempt that the collector is away; we say once that it is.
        logging.getLogger(OTLPSpanExporter.__module__).setLevel(logging.CRITICAL)
        self._resource = Resource({"service.name": "consilium", "service.version": version, "service.instance.id": str(uuid.uuid4())})
        self._scope = InstrumentationScope("consilium", version)

    def send(self, spans: Sequence[Span]) -> bool:
        return self._exporter.export([self._readable(span) for span in spans]) is SpanExportResult.SUCCESS

    def close(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _readable(self, span: Span) -> ReadableSpan:
        context = span.context
        return ReadableSpan(
            name=span.name,
            context=_span_context(context.trace_id, context.span_id, state=context.state),
            parent=None if context.parent_id is None else _span_context(context.trace_id, context.parent_id, state=None),
            resource=self._resource,
            attributes=span.attributes,
            kind=_KINDS[span.kind],
            status=Status(StatusCode.UNSET if span.error_type is None else StatusCode.ERROR),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )


def _span_context(trace_id: str, span_id: str, *, state: str | None) -> SpanContext:
    states = TraceState.from_header([state]) if state else None
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED), trace_state=states)
