"""Prometheus metrics. Names follow OpenTelemetry's GenAI semantic conventions where one exists; the rest is ``consilium_``.

Label values come from the registry or from fixed lists; what a caller makes up is counted as ``other``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.metrics import MetricWrapperBase

from domain.experts import HealthState
from domain.trace import Trace

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_ROUTE_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)
_OTHER = "other"

MetricT = TypeVar("MetricT", bound=MetricWrapperBase)

MAX_LABEL_VALUES = 2_000
"""Names of models and experts that get a series of their own in one process: a series costs about 2 kB."""


class Labels:
    """Lets at most *max_values* distinct values through; more become ``other``."""

    def __init__(self, max_values: int = MAX_LABEL_VALUES) -> None:
        self._max_values = max_values
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._seen:
            if len(self._seen) >= self._max_values:
                return _OTHER
            self._seen.add(value)
        return value


class Collector(Protocol):
    """What is rendered."""

    def collect(self) -> Iterable[Metric]: ...


class ExpertGauges(Protocol):
    """What is read about experts at each scrape."""

    def expert_ids(self) -> Iterable[str]: ...
    def health_of(self, expert_id: str) -> HealthState: ...
    def in_flight(self, expert_id: str) -> int: ...
    def queued(self, expert_id: str) -> int: ...


class ServerGauges(Protocol):
    """What is read about managed servers at each scrape."""

    @property
    def num_resident(self) -> int: ...
    @property
    def num_loads(self) -> int: ...
    @property
    def num_failed_loads(self) -> int: ...
    @property
    def waited_s(self) -> float: ...


def watch_servers(metrics: Metrics, gauges: ServerGauges) -> None:
    """Show what the managed servers hold and cost."""
    metrics.count("consilium_servers_resident", "Managed servers that hold memory now.", lambda: gauges.num_resident)
    metrics.count("consilium_server_loads", "Loads of managed servers since the start.", lambda: gauges.num_loads)
    metrics.count("consilium_server_loads_failed", "Loads that failed since the start.", lambda: gauges.num_failed_loads)
    metrics.count("consilium_server_wait_seconds", "Seconds that requests have waited for managed servers.", lambda: gauges.waited_s)


class Metrics:
    """One process's metrics; a trace sink. Of several processes behind one port each has *worker*, its number, as a label: any of them
    answers a scrape, and their counters must not be taken for one another's."""

    def __init__(self, *, worker: int | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside each counter that nobody asks for
        self.registry = CollectorRegistry()
        self._rendered: Collector = self.registry if worker is None else _OfWorker(self.registry, worker)
        self._names = Labels()
        self._children: dict[tuple[MetricWrapperBase, tuple[str, ...]], MetricWrapperBase] = {}
        self.request_duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "Time from the request's arrival to its last byte.",
            ["gen_ai_operation_name", "gen_ai_request_model", "error_type"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time to the first token of a streamed answer.",
            ["gen_ai_operation_name", "gen_ai_request_model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of one call to an expert.",
            ["gen_ai_operation_name", "gen_ai_token_type", "gen_ai_response_model"],
            buckets=_TOKENS,
            registry=self.registry,
        )
        self.route = Histogram(
            "consilium_route_seconds", "Time to the routing decision.", ["router"], buckets=_ROUTE_SECONDS, registry=self.registry
        )
        self.overhead = Histogram(
            "consilium_overhead_seconds",
            "Total time minus the time spent waiting for experts.",
            buckets=_ROUTE_SECONDS,
            registry=self.registry,
        )
        self.expert_calls = Counter("consilium_expert_calls", "Calls to experts.", ["expert", "role", "status"], registry=self.registry)
        self.expert_seconds = Histogram(
            "consilium_expert_call_seconds", "Time of one call to an expert.", ["expert", "role"], buckets=_SECONDS, registry=self.registry
        )
        self.fallbacks = Counter(
            "consilium_fallbacks", "Queries like nothing known that went to the strategy's fallback expert.", registry=self.registry
        )
        self.panels = Counter(
            "consilium_panels",
            "Answers made of several candidates, by whether they say something else than the best-scored candidate.",
            ["changed"],
            registry=self.registry,
        )
        self.not_asked = Counter(
            "consilium_candidates_not_asked",
            "Selected experts that were not asked: the best was known to be enough, or there was no room.",
            ["why"],
            registry=self.registry,
        )
        self.http_requests = Counter(
            "consilium_http_requests", "HTTP requests by route.", ["method", "route", "status"], registry=self.registry
        )
        self.in_flight = Gauge("consilium_in_flight", "HTTP requests being served now.", registry=self.registry)

    def emit(self, trace: Trace) -> None:
        """Count one request (``orchestrator.ports.TraceSink``)."""
        model = _OTHER if trace.error_code == "model_not_found" else self._names(trace.model)
        error = "" if trace.status == "ok" else trace.error_code or trace.status
        self._series(self.request_duration, "chat", model, error).observe(trace.timings.total / 1e3)
        if trace.stream and trace.timings.first_token is not None:
            self._series(self.first_token, "chat", model).observe(trace.timings.first_token / 1e3)
        if trace.decision is not None:
            self._series(self.route, self._names(trace.decision.router)).observe(trace.timings.route / 1e3)
            if trace.decision.fallback:
                self.fallbacks.inc()
            for why in ("enough_alone", "load_shed"):
                if (told := trace.decision.detail.get(why)) is not None:
                    self._series(self.not_asked, why).inc(told["of"] - told["asked"])
        if trace.panel_changed_answer is not None:
            self._series(self.panels, "yes" if trace.panel_changed_answer else "no").inc()
        self.overhead.observe(trace.timings.overhead / 1e3)
        for call in trace.calls:
            expert = self._names(call.expert_id)
            self._series(self.expert_calls, expert, call.role, call.status).inc()
            self._series(self.expert_seconds, expert, call.role).observe(call.latency_ms / 1e3)
            if call.usage.total_tokens:
                self._series(self.tokens, "chat", "input", expert).observe(call.usage.prompt_tokens)
                self._series(self.tokens, "chat", "output", expert).observe(call.usage.completion_tokens)

    def _series(self, metric: MetricT, *values: str) -> MetricT:
        """``metric.labels(*values)``, which checks and looks up again what it is given, under a lock; a request asks for ten. As many are
        kept as there are: ``Labels`` bounds them."""
        known = self._children.get((metric, values))
        if known is None:
            known = self._children[metric, values] = metric.labels(*values)
        return cast(MetricT, known)

    def embedded(self, *, model: str, seconds: float, num_tokens: int) -> None:
        """Count one embeddings request."""
        self.request_duration.labels("embeddings", model, "").observe(seconds)
        self.tokens.labels("embeddings", "input", model).observe(num_tokens)

    def count_http(self, method: str, route: str | None, status: int) -> None:
        """Count one HTTP exchange. *route* is the path's template, None when no route matched."""
        known = method if method in {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"} else _OTHER
        self._series(self.http_requests, known, route or "unmatched", str(status)).inc()

    def watch(self, gauges: ExpertGauges) -> None:
        """Show health, calls in flight and calls waiting of every expert."""
        self.registry.register(_ExpertCollector(gauges))

    def count(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Show a number that something else keeps."""
        Gauge(name, documentation, registry=self.registry).set_function(read)

    def render(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._rendered)


class _OfWorker:
    """What a registry holds, with the worker's number as one more label."""

    def __init__(self, registry: CollectorRegistry, worker: int) -> None:
        self._registry, self._label = registry, {"worker": str(worker)}

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample._replace(labels={**sample.labels, **self._label}) for sample in metric.samples]
            yield metric


class _ExpertCollector:
    """Reads the gauges at each scrape, so that an expert that was removed leaves no stale series."""

    def __init__(self, gauges: ExpertGauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        health = GaugeMetricFamily("consilium_expert_health", "1 for the state of the expert's circuit.", labels=["expert", "state"])
        running = GaugeMetricFamily("consilium_expert_in_flight", "Calls running now.", labels=["expert"])
        waiting = GaugeMetricFamily("consilium_expert_queued", "Calls waiting for a place.", labels=["expert"])
        for expert_id in list(self._gauges.expert_ids())[:MAX_LABEL_VALUES]:
            now = self._gauges.health_of(expert_id)
            for state in HealthState:
                health.add_metric([expert_id, state], float(state is now))
            running.add_metric([expert_id], self._gauges.in_flight(expert_id))
            waiting.add_metric([expert_id], self._gauges.queued(expert_id))
        yield from (health, running, waiting)
