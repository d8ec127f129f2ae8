"""What a scrape reads about the process itself: whether it is ready, what it works on, what it has lost."""

from __future__ import annotations

from typing import Protocol

from prometheus_client import Gauge

from api.metrics import Metrics
from api.readiness import Readiness


class TraceGauges(Protocol):
    """What is read of ``experts_registry.traces.TraceStore``."""

    num_dropped: int

    @property
    def num_queued(self) -> int: ...


class SpanGauges(Protocol):
    """What is read of ``api.span_exporter.SpanExporter``."""

    num_exported: int

    @property
    def num_dropped(self) -> int: ...


class BatchGauges(Protocol):
    """What is read of ``orchestrator.batch.service.BatchService``."""

    @property
    def num_working(self) -> int: ...


def watch_traces(metrics: Metrics, traces: TraceGauges, spans: SpanGauges | None) -> None:
    """Show what becomes of traces; *spans* is None where none are exported."""
    metrics.gauge("consilium_traces_queued", "Traces that wait to be written to the database.", lambda: traces.num_queued)
    metrics.counter("consilium_traces_dropped", "Traces that were never written to the database.", lambda: traces.num_dropped)
    metrics.counter(
        "consilium_otlp_traces_exported", "Requests whose spans the collector took.", lambda: 0 if spans is None else spans.num_exported
    )
    metrics.counter("consilium_otlp_traces_dropped", "Requests whose spans were lost.", lambda: 0 if spans is None else spans.num_dropped)


def watch_process(metrics: Metrics, readiness: Readiness, batches: BatchGauges, *, version: str) -> None:
    """Show whether the process answers, what it works on, and which version it is."""
    metrics.gauge("consilium_ready", "1 when everything is loaded that requests need.", lambda: float(readiness.is_ready))
    metrics.gauge("consilium_batches_working", "Batches that this process works on now.", lambda: batches.num_working)
    Gauge("consilium_build_info", "1 for the version that runs.", ["version"], registry=metrics.registry).labels(version).set(1)
