"""The spans of a request that is only routed: its trace goes to no store, and is told to the collector with what was decided."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType

from api.span_exporter import SpanExporter
from api.spans import ROUTE
from domain.routing import RoutingDecision
from domain.trace import Trace


class DecisionSpans:
    """Satisfies ``orchestrator.ports.TraceSink`` for one request. Whatever becomes of the block, its spans are told at the end."""

    def __init__(self, spans: SpanExporter | None) -> None:
        """*spans*: None where none are exported."""
        self._spans = spans
        self._trace: Trace | None = None
        self.decision: RoutingDecision | None = None
        """To be set when it is there: the trace is finished before."""

    def emit(self, trace: Trace) -> None:
        """Keep *trace* until the decision is known."""
        self._trace = trace

    def __enter__(self) -> DecisionSpans:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._spans is not None and self._trace is not None:
            self._spans.emit(replace(self._trace, decision=self.decision), ROUTE)
