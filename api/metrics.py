"""Prometheus metrics. Names follow OpenTelemetry's GenAI semantic conventions where one exists; the rest is ``consilium_``.

Label values come from the registry or from fixed lists; what a caller makes up is counted as ``other``. docs/telemetry.md has them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.metrics import MetricWrapperBase

from api.series import OTHER, SeriesTable
from domain.experts import HealthState, Price
from domain.spending import NANO, cost
from domain.trace import CallRecord, Trace

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_ROUTE_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
_QUEUE_SECONDS = (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_MAX_WAITS = 1_000
"""Waits for a place that are counted together, at most; a trace comes long before."""
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)
_FALLBACK = " (fallback)"

MetricT = TypeVar("MetricT", bound=MetricWrapperBase)

MAX_LABEL_VALUES = 2_000
"""Names of models and experts that get a series of their own in one process: a series costs about 2 kB."""
MAX_SERIES = 20_000
"""Labelled series of one process, some 100 MB with their lines: combinations of names that are all known can still be many."""


class Labels:
    """Lets at most *max_values* distinct values through; more become ``other``."""

    def __init__(self, max_values: int = MAX_LABEL_VALUES) -> None:
        self._max_values = max_values
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._seen:
            if len(self._seen) >= self._max_values:
                return OTHER
            self._seen.add(value)
        return value

    def forget(self, is_known: Callable[[str], bool]) -> set[str]:
        """Let go of the values that are not known any more, and say which those are."""
        gone = {value for value in self._seen if not is_known(value)}
        self._seen -= gone
        return gone


class Collector(Protocol):
    """What is rendered."""

    def collect(self) -> Iterable[Metric]: ...


class ExpertGauges(Protocol):
    """What is read about experts at each scrape."""

    def expert_ids(self) -> Iterable[str]: ...
    def health_of(self, expert_id: str) -> HealthState: ...
    def in_flight(self, expert_id: str) -> int: ...
    def queued(self, expert_id: str) -> int: ...

    def has_model(self, name: str) -> bool:
        """Whether a request may name that model."""
        ...

    def price_of(self, expert_id: str) -> Price | None:
        """None for an expert that is gone."""
        ...


class ServerGauges(Protocol):
    """What is read about managed servers at each scrape."""

    @property
    def num_resident(self) -> int: ...
    @property
    def num_uses(self) -> int: ...
    @property
    def num_hits(self) -> int: ...
    @property
    def num_loads(self) -> int: ...
    @property
    def num_failed_loads(self) -> int: ...
    @property
    def waited_s(self) -> float: ...


def watch_servers(metrics: Metrics, gauges: ServerGauges) -> None:
    """Show what the managed servers hold and cost."""
    metrics.gauge("consilium_servers_resident", "Managed servers that hold memory now.", lambda: gauges.num_resident)
    metrics.counter("consilium_server_uses", "Calls that were let in at a managed server.", lambda: gauges.num_uses)
    metrics.counter("consilium_server_hits", "Calls that found their managed server loaded.", lambda: gauges.num_hits)
    metrics.counter("consilium_server_loads", "Loads of managed servers.", lambda: gauges.num_loads)
    metrics.counter("consilium_server_loads_failed", "Loads that failed.", lambda: gauges.num_failed_loads)
    metrics.counter("consilium_server_wait_seconds", "Seconds that requests have waited for managed servers.", lambda: gauges.waited_s)


class Metrics:
    """One process's metrics; a trace sink. Of several processes behind one port each has *worker*, its number, as a label: any of them
    answers a scrape, and their counters must not be taken for one another's."""

    def __init__(self, *, worker: int | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside each counter that nobody asks for
        self.registry = CollectorRegistry()
        self._rendered: Collector = self.registry if worker is None else _OfWorker(self.registry, worker)
        self._models, self._experts, self._others = Labels(), Labels(), Labels()
        self._gauges: ExpertGauges | None = None
        ProcessCollector(registry=self.registry)
        made = self._table = SeriesTable(max_series=MAX_SERIES, labels={} if worker is None else {"worker": str(worker)})
        # Of metrics about a model or an expert its name is the first label, by which series of what is gone are found.
        self.request_duration = made.histogram(
            "gen_ai_server_request_duration_seconds",
            "Time from the request's arrival to its last byte.",
            ("gen_ai_request_model", "gen_ai_operation_name", "error_type"),
            _SECONDS,
        )
        self.first_token = made.histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time to the first token of a streamed answer.",
            ("gen_ai_request_model", "gen_ai_operation_name"),
            _SECONDS,
        )
        self.tokens = made.histogram(
            "gen_ai_client_token_usage",
            "Tokens of one call to an expert.",
            ("gen_ai_response_model", "gen_ai_operation_name", "gen_ai_token_type", "role"),
            _TOKENS,
        )
        self.call_duration = made.histogram(
            "gen_ai_client_operation_duration_seconds",
            "Time of one call to an expert, its waits and further attempts included.",
            ("gen_ai_response_model", "gen_ai_operation_name", "role", "error_type"),
            _SECONDS,
        )
        self.call_first_token = made.histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "Time to the first token of one streamed call to an expert.",
            ("gen_ai_response_model", "gen_ai_operation_name", "role"),
            _SECONDS,
        )
        self.expert_calls = made.counter("consilium_expert_calls", "Calls to experts.", ("expert", "role", "status"))
        self.expert_cost = made.counter("consilium_expert_cost_dollars", "US dollars that calls to experts cost.", ("expert", "role"))
        self.expert_queue = made.histogram(
            "consilium_expert_queue_seconds", "Time that a call waited for a place at its expert.", ("expert", "role"), _QUEUE_SECONDS
        )
        self.selections = made.counter("consilium_selections", "Experts that a router selected.", ("expert", "router"))
        self.route = made.histogram("consilium_route_seconds", "Time to the routing decision.", ("router",), _ROUTE_SECONDS)
        self.overhead = Histogram(
            "consilium_overhead_seconds",
            "Total time minus the time spent waiting for experts.",
            buckets=_ROUTE_SECONDS,
            registry=self.registry,
        )
        self.aggregations = made.counter("consilium_aggregations", "How answers were made, and what came of it.", ("aggregator", "outcome"))
        self.fallbacks = Counter(
            "consilium_fallbacks", "Queries like nothing known that went to the strategy's fallback expert.", registry=self.registry
        )
        self.panels = made.counter(
            "consilium_panels",
            "Answers made of several candidates, by whether they say something else than the best-scored candidate.",
            ("changed",),
        )
        self.not_asked = made.counter(
            "consilium_candidates_not_asked",
            "Selected experts that were not asked: the best was known to be enough, or there was no room.",
            ("why",),
        )
        self.batch_lines = made.counter("consilium_batch_lines", "Lines of batches that are over.", ("outcome",))
        self.http_requests = made.counter("consilium_http_requests", "HTTP requests by route.", ("method", "route", "status"))
        self.num_in_flight = 0
        """HTTP requests being served now."""
        self.gauge("consilium_in_flight", "HTTP requests being served now.", lambda: self.num_in_flight)
        self._waits: list[tuple[str, str, float]] = []
        self._named: dict[MetricWrapperBase, Labels] = {
            self.request_duration: self._models,
            self.first_token: self._models,
            self.tokens: self._experts,
            self.call_duration: self._experts,
            self.call_first_token: self._experts,
            self.expert_calls: self._experts,
            self.expert_cost: self._experts,
            self.expert_queue: self._experts,
            self.selections: self._experts,
        }

    def emit(self, trace: Trace) -> None:
        """Count one request (``orchestrator.ports.TraceSink``)."""
        self._count_waits()
        model = OTHER if trace.error_code == "model_not_found" else self._models(trace.model)
        error = "" if trace.status == "ok" else trace.error_code or trace.status
        self._series(self.request_duration, model, "chat", error).observe(trace.timings.total / 1e3)
        if trace.stream and trace.timings.first_token is not None:
            self._series(self.first_token, model, "chat").observe(trace.timings.first_token / 1e3)
        if trace.decision is not None:
            router = self._others(trace.decision.router)
            self._series(self.route, router).observe(trace.timings.route / 1e3)
            for expert_id in trace.decision.selected:
                self._series(self.selections, self._experts(expert_id), router).inc()
            if trace.decision.fallback:
                self.fallbacks.inc()
            if trace.decision.is_detailed:  # else nobody was left out, and the detail would be made for this alone
                for why in ("enough_alone", "load_shed"):
                    if (told := trace.decision.detail.get(why)) is not None:
                        self._series(self.not_asked, why).inc(told["of"] - told["asked"])
        if trace.panel_changed_answer is not None:
            self._series(self.panels, "yes" if trace.panel_changed_answer else "no").inc()
        self.overhead.observe(trace.timings.overhead / 1e3)
        if trace.aggregator is not None:
            how = trace.aggregator.removesuffix(_FALLBACK)
            outcome = "failed" if trace.status != "ok" else "ok" if how == trace.aggregator else "fallback"
            self._series(self.aggregations, self._others(how.partition(":")[0]), outcome).inc()
        for call in trace.calls:
            self._count_call(call)

    def _count_call(self, call: CallRecord) -> None:
        expert = self._experts(call.expert_id)
        self._series(self.expert_calls, expert, call.role, call.status).inc()
        if call.status == "skipped":
            return
        error = "" if call.status == "ok" else call.error_code or call.status
        self._series(self.call_duration, expert, "chat", call.role, error).observe(call.latency_ms / 1e3)
        if call.first_token_ms is not None:
            self._series(self.call_first_token, expert, "chat", call.role).observe(call.first_token_ms / 1e3)
        if not call.usage.total_tokens:
            return
        self._series(self.tokens, expert, "chat", "input", call.role).observe(call.usage.prompt_tokens)
        self._series(self.tokens, expert, "chat", "output", call.role).observe(call.usage.completion_tokens)
        price = None if self._gauges is None else self._gauges.price_of(call.expert_id)
        if price is not None and (nano_usd := cost(price, call.usage)):
            self._series(self.expert_cost, expert, call.role).inc(nano_usd / NANO)

    def _series(self, metric: MetricT, *values: str) -> MetricT:
        return self._table.of(metric, values)

    def embedded(self, *, model: str, seconds: float, num_tokens: int) -> None:
        """Count one embeddings request."""
        self._series(self.request_duration, model, "embeddings", "").observe(seconds)
        self._series(self.tokens, model, "embeddings", "input", "").observe(num_tokens)

    def waited(self, expert_id: str, role: str, seconds: float) -> None:
        """Count one call's wait for a place at its expert (``workers.pool.WorkerPool``), once it is over: the call begins now, and is not
        to wait for its accounts."""
        self._waits.append((expert_id, role, seconds))
        if len(self._waits) >= _MAX_WAITS:
            self._count_waits()

    def _count_waits(self) -> None:
        waits, self._waits = self._waits, []
        for expert_id, role, seconds in waits:
            self._series(self.expert_queue, self._experts(expert_id), role).observe(seconds)

    def lines_ended(self, num_completed: int, num_failed: int) -> None:
        """Count lines of a batch that are over, each once it is durable."""
        self._series(self.batch_lines, "completed").inc(num_completed)
        self._series(self.batch_lines, "failed").inc(num_failed)

    def count_http(self, method: str, route: str | None, status: int) -> None:
        """Count one HTTP exchange. *route* is the path's template, None when no route matched."""
        known = method if method in {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"} else OTHER
        self._series(self.http_requests, known, route or "unmatched", str(status)).inc()

    def watch(self, gauges: ExpertGauges) -> None:
        """Show health, calls in flight and calls waiting of every expert, count what calls cost, and let go of the series of experts and
        strategies that are gone."""
        self._gauges = gauges
        self.registry.register(_ExpertCollector(gauges))

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Show a number that something else keeps, and that may go up and down."""
        Gauge(name, documentation, registry=self.registry).set_function(read)

    def counter(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Show a number that something else keeps, and that only grows; as ``name_total``."""
        self.registry.register(_Counted(name, documentation, read))

    def families(self) -> Iterator[Metric]:
        """Every metric with its series."""
        self._count_waits()
        yield from self._rendered.collect()
        yield from self._table.collect()

    async def render(self) -> bytes:
        """Everything, in Prometheus' text format."""
        await asyncio.sleep(0)  # what is counted when this turn of the loop ends belongs to what came before
        self._count_waits()
        self._forget_gone()
        return generate_latest(self._rendered) + await self._table.render()

    def _forget_gone(self) -> None:
        """Experts come and go; without this their series would stay, and fill the room of those to come."""
        if self._gauges is None:
            return
        experts = set(self._gauges.expert_ids())
        gone = {
            id(self._experts): self._experts.forget(experts.__contains__),
            id(self._models): self._models.forget(self._gauges.has_model),
        }
        if not any(gone.values()):
            return
        labels_of = self._named

        def is_gone(metric: MetricWrapperBase, values: tuple[str, ...]) -> bool:
            labels = labels_of.get(metric)
            return labels is not None and values[0] in gone[id(labels)]

        self._table.forget(is_gone)


class _OfWorker:
    """What a registry holds, with the worker's number as one more label."""

    def __init__(self, registry: CollectorRegistry, worker: int) -> None:
        self._registry, self._label = registry, {"worker": str(worker)}

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample._replace(labels={**sample.labels, **self._label}) for sample in metric.samples]
            yield metric


class _Counted:
    """A counter that something else keeps."""

    def __init__(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        self._name, self._documentation, self._read = name, documentation, read

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._name, self._documentation, value=self._read())


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
