"""What is counted of a trace, under labels that stay few, and how it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import MAX_LABEL_VALUES, Metrics
from api.series import OTHER, SeriesTable
from domain.chat import Usage
from domain.experts import HealthState, Price
from domain.plan import CallRole
from domain.routing import RoutingDecision
from domain.trace import CallRecord, Timings, Trace

DECISION = RoutingDecision("skills", ("a", "b"), ())
OF_CALLS = ("gen_ai_client_", "consilium_expert_", "consilium_selections")


def call(expert: str = "a", status: str = "ok", role: CallRole = CallRole.CANDIDATE, **changes: Any) -> CallRecord:
    return CallRecord(expert, role, status, 250.0, **{"usage": Usage(10, 3) if status == "ok" else Usage(), **changes})


def trace(*calls: CallRecord, **changes: Any) -> Trace:
    given: dict[str, Any] = {"model": "auto", "decision": DECISION, "timings": Timings(total=300.0), **changes}
    return Trace(request_id="r", strategy="auto", started_at=0.0, status=given.pop("status", "ok"), calls=calls, **given)


@dataclass
class Gauges:
    """Experts and models of a registry."""

    experts: set[str] = field(default_factory=lambda: {"a", "b"})
    models: set[str] = field(default_factory=lambda: {"auto"})

    def expert_ids(self) -> Iterable[str]:
        return self.experts

    def health_of(self, expert_id: str) -> HealthState:
        return HealthState.CLOSED

    def in_flight(self, expert_id: str) -> int:
        return 0

    def queued(self, expert_id: str) -> int:
        return 0

    def has_model(self, name: str) -> bool:
        return name in self.models

    def price_of(self, expert_id: str) -> Price | None:
        return Price(2.0, 10.0) if expert_id in self.experts else None


async def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """By name and labels, as a scraper reads them."""
    text = (await metrics.render()).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def value(metrics: Metrics, name: str, **labels: str) -> float:
    return (await samples(metrics)).get((name, frozenset(labels.items())), 0.0)


async def test_every_call_is_counted_by_expert_and_role() -> None:
    metrics = Metrics()
    metrics.watch(Gauges())
    metrics.emit(trace(call(), call("b", "error", error="expert_timeout: late"), call("a", role=CallRole.AGGREGATOR, first_token_ms=40.0)))

    of_a = {"gen_ai_response_model": "a", "gen_ai_operation_name": "chat"}
    of_b = {**of_a, "gen_ai_response_model": "b"}
    assert await value(metrics, "consilium_expert_calls_total", expert="a", role="candidate", status="ok") == 1
    assert await value(metrics, "consilium_expert_calls_total", expert="b", role="candidate", status="error") == 1
    duration = "gen_ai_client_operation_duration_seconds_sum"
    assert await value(metrics, duration, **of_a, role="candidate", error_type="") == 0.25
    assert await value(metrics, duration, **of_b, role="candidate", error_type="expert_timeout") == 0.25
    assert await value(metrics, "gen_ai_client_token_usage_sum", **of_a, role="aggregator", gen_ai_token_type="input") == 10
    assert await value(metrics, "gen_ai_client_operation_time_to_first_chunk_seconds_sum", **of_a, role="aggregator") == 0.04
    assert await value(metrics, "consilium_expert_cost_dollars_total", expert="a", role="candidate") == pytest.approx(50e-6)


async def test_what_was_not_called_took_no_time() -> None:
    metrics = Metrics()
    metrics.emit(trace(call("b", "skipped", error="expert_unavailable: its circuit is open")))

    assert await value(metrics, "consilium_expert_calls_total", expert="b", role="candidate", status="skipped") == 1
    assert not [name for name, _ in await samples(metrics) if name.startswith("gen_ai_client_operation_duration")]


@pytest.mark.parametrize(
    ("aggregator", "status", "label", "outcome"),
    [
        ("fuse:a", "ok", "fuse", "ok"),
        ("fuse:a (fallback)", "ok", "fuse", "fallback"),
        ("vote", "error", "vote", "failed"),
        ("single", "ok", "single", "ok"),
    ],
)
async def test_how_answers_were_made(aggregator: str, status: str, label: str, outcome: str) -> None:
    metrics = Metrics()
    metrics.emit(trace(call(), aggregator=aggregator, status=status))

    assert await value(metrics, "consilium_aggregations_total", aggregator=label, outcome=outcome) == 1


async def test_selections_waits_and_lines_are_counted() -> None:
    metrics = Metrics()
    metrics.emit(trace(call()))
    metrics.waited("a", "candidate", 0.3)
    metrics.lines_ended(3, 1)

    assert await value(metrics, "consilium_selections_total", expert="b", router="skills") == 1
    assert await value(metrics, "consilium_expert_queue_seconds_sum", expert="a", role="candidate") == 0.3
    assert await value(metrics, "consilium_batch_lines_total", outcome="completed") == 3
    assert await value(metrics, "consilium_batch_lines_total", outcome="failed") == 1


async def test_thousands_of_strategies_and_experts_share_a_bounded_number_of_series() -> None:
    metrics = Metrics()
    for number in range(MAX_LABEL_VALUES + 500):
        metrics.emit(trace(call(f"e{number}"), model=f"consilium/s{number}", decision=None))

    lines = (await metrics.render()).decode().splitlines()
    for name in ("gen_ai_server_request_duration_seconds_count", "consilium_expert_calls_total"):
        found = [line for line in lines if line.startswith(f"{name}{{")]
        assert len(found) == MAX_LABEL_VALUES + 1
        assert [line.rpartition(" ")[2] for line in found if f'"{OTHER}"' in line] == ["500.0"]


async def test_combinations_are_bounded_as_well() -> None:
    table = SeriesTable(max_series=3, labels={})
    counter = table.counter("calls", "Calls.", ("expert", "role"))
    for expert in "abcdef":
        table.of(counter, (expert, "judge")).inc()

    assert (await table.render()).decode().splitlines()[2:] == [
        *(f'calls_total{{expert="{name}",role="judge"}} 1.0' for name in "abc"),
        'calls_total{expert="other",role="other"} 3.0',
    ]


async def test_experts_and_strategies_that_are_gone_leave_no_series_and_their_room_to_others() -> None:
    gauges, metrics = Gauges({"a", "b", "ok"}, {"auto", "consilium/x"}), Metrics()
    metrics.watch(gauges)
    metrics.emit(trace(call("a"), call("b"), call("ok"), model="consilium/x", decision=RoutingDecision("skills", ("b",), ())))
    metrics.waited("b", "candidate", 0.1)
    assert any(("expert", "b") in labels for _, labels in await samples(metrics))
    gauges.experts.discard("b")
    gauges.experts.discard("ok")
    gauges.models.discard("consilium/x")

    found = await samples(metrics)
    named = {value for name, labels in found for label, value in labels if label in {"expert", "gen_ai_response_model"}}
    assert named == {"a"}
    assert not any(("gen_ai_request_model", "consilium/x") in labels for _, labels in found)
    status = frozenset({("expert", "a"), ("role", "candidate"), ("status", "ok")})
    assert found["consilium_expert_calls_total", status] == 1, "an expert of that name is gone, not the status"
    gauges.experts.add("b")
    metrics.emit(trace(call("b")))
    assert await value(metrics, "consilium_expert_calls_total", expert="b", role="candidate", status="ok") == 1, "it begins anew"


async def test_lines_are_as_the_library_writes_them() -> None:
    """They are written by hand and kept; a scrape must not show the difference."""
    metrics = Metrics()
    metrics.emit(trace(call('quoted "x" \\ and\nmore'), call(), stream=True, aggregator="vote"))
    metrics.lines_ended(1, 0)
    ours = (await metrics.render()).decode()

    class Families:
        def collect(self) -> Any:
            return metrics.families()

    library = generate_latest(Families()).decode()  # type: ignore[arg-type]
    constant = lambda text: sorted(line for line in text.splitlines() if not line.startswith("process_"))  # noqa: E731
    assert constant(ours) == constant(library)


async def test_a_series_that_was_counted_in_between_scrapes_is_written_anew() -> None:
    metrics = Metrics()
    for expected in (1.0, 2.0, 2.0):
        if expected == 1.0 or await value(metrics, "consilium_batch_lines_total", outcome="failed") == 1.0:
            metrics.lines_ended(0, 1)
        assert await value(metrics, "consilium_batch_lines_total", outcome="failed") == expected


async def test_a_scrape_of_many_series_lets_requests_in_between() -> None:
    metrics = Metrics()
    for number in range(500):
        metrics.emit(trace(call(f"e{number}"), decision=None))
    scrape = asyncio.create_task(metrics.render())
    num_turns = 0
    while not scrape.done():
        await asyncio.sleep(0)
        num_turns += 1

    assert num_turns > 20


async def test_of_several_processes_each_line_says_which() -> None:
    metrics = Metrics(worker=3)
    metrics.watch(Gauges())
    metrics.emit(trace(call()))

    lines = [line for line in (await metrics.render()).decode().splitlines() if not line.startswith("#")]
    assert len(lines) > 50
    assert all('worker="3"' in line for line in lines)
