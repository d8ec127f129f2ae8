"""A batch on real vLLM servers: one by one, expert by expert, and by the engine's plan.

    make vllm && python benchmarks/batch.py [--questions N] [--naive N] [--rounds N] [--check]

The zoo's full specialists on vLLM's CPU build, memory for two servers at a time, k = 3 candidates and an aggregator a question:

1. grouped: each server is loaded alone and driven directly, over HTTP, at the experts' concurrency; then it is stopped. Gives the
   measured load times, memory and direct rates that the bound is made of.
2. naive: the online path, a question at a time, which loads what each needs. A few questions are measured and scaled.
3. engine: a batch over the same questions. The bound is what its plan would take if loads and calls took as long as in 1.

Then one server alone: calls a second driven directly and through the engine, in turns, five times as many calls, since a small
model answers 200 within a second. Prints tables; ``--check`` ends with status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import aiohttp
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from api.bootstrap import bootstrap
from api.cli.connection import until_ready
from api.event_loop import run_async
from api.metrics import Metrics
from api.services import Services
from api.settings import Settings
from benchmarks.served_zoo import ROOT
from domain.batch import Batch, BatchRunner, BatchState, FilePurpose
from domain.deadline import Deadline
from domain.plan import Candidate
from domain.routing import PickRule
from domain.strategy import Strategy
from evaluation.labelled import read_labelled_rows
from orchestrator.batch.host import BatchExpert, Device, Host, Server
from orchestrator.batch.line import NothingToAggregate, with_strategy
from orchestrator.batch.news import BatchNews, OnNews, Phase
from orchestrator.batch.planning import plan_batch
from orchestrator.batch.routes import RouteTable, RouteTableBuilder

EXPERTS = ("arithmetic", "numerals", "text", "calendar", "units", "facts")
AGGREGATOR = "aggregator"
ENDPOINT = "/v1/chat/completions"
STRATEGY = Strategy(
    id="benchmark",
    pick=PickRule("top_k", k=3),
    aggregator="fuse",
    aggregator_expert=AGGREGATOR,
    fallback_expert=EXPERTS[0],
    max_calls=8,
    timeout_s=600.0,
)
ENGINE = "engine"
MIN_SPEEDUP, MAX_OVER_BOUND, MIN_SHARE = 20.0, 1.25, 0.8
_BIG_MB = 64_000.0
_TIMES_AS_MANY = 5
"""Calls of the comparison on one server, for each question."""


@dataclass
class Loaded:
    """What was measured of one server alone."""

    load_s: float
    memory_mb: float
    seconds: float = 0.0
    """Of its bucket, driven directly."""
    num_calls: int = 0
    texts: dict[str, str] = field(default_factory=dict)
    """By request id."""

    @property
    def call_s(self) -> float:
        return self.seconds / max(1, self.num_calls)


@dataclass(frozen=True)
class Grouped:
    """The routes, what was measured of each server, the answers by custom id, and the seconds of it all."""

    table: RouteTable
    servers: dict[str, Loaded]
    answers: dict[str, str]
    seconds: float


@asynccontextmanager
async def services_on(folder: Path, *, memory_mb: float) -> AsyncIterator[Services]:
    """The service's parts, the zoo on managed vLLM servers."""
    settings = Settings(
        data_dir=folder, engine="vllm", worker_memory_mb=memory_mb, run_batches=False, traces=True, admin_key=SecretStr("b" * 32),
        _env_file=None,
    )  # fmt: skip
    async with bootstrap(settings, Metrics()) as services:
        await until_ready(services.readiness, ())
        if STRATEGY.id not in services.directory.snapshot().strategies:
            await services.strategy_store.create(STRATEGY)
            await services.directory.refresh()
        yield services


def lines_of(questions: Sequence[str], model: str = f"consilium/{STRATEGY.id}") -> list[dict[str, Any]]:
    allow = [*EXPERTS, AGGREGATOR]
    return [
        {
            "custom_id": f"q{number}",
            "method": "POST",
            "url": ENDPOINT,
            "body": {"model": model, "messages": [{"role": "user", "content": text}], "consilium": {"allow": allow}},
        }
        for number, text in enumerate(questions)
    ]


# --- 1. grouped, which is also where loads and direct rates are measured ---------------------------------------------


async def direct(base_url: str, bodies: Mapping[str, Mapping[str, Any]], concurrency: int) -> tuple[dict[str, str], float]:
    """The texts by id, and the seconds: plain HTTP, as many at once as *concurrency*."""
    waiting, texts = iter(bodies.items()), dict[str, str]()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=600)) as http:

        async def lane() -> None:
            for name, body in waiting:
                async with http.post(f"{base_url}/chat/completions", json=body) as response:
                    response.raise_for_status()
                    answer = await response.json()
                    texts[name] = answer["choices"][0]["message"]["content"] or ""

        began = time.perf_counter()
        await asyncio.gather(*(lane() for _ in range(concurrency)))
        return texts, time.perf_counter() - began


async def grouped(services: Services, lines: Sequence[Mapping[str, Any]], console: Console) -> Grouped:
    """One server after the other, each loaded once, alone."""
    parts = services.batches.parts(traced=False)
    shape, builder, known = parts.shapes[ENDPOINT], RouteTableBuilder(), []
    began = time.perf_counter()  # the other runs have to route as well
    for number, line in enumerate(lines):
        request = with_strategy(shape.request(line["body"], f"direct-{number}"), None)  # type: ignore[union-attr]
        route = await parts.lines.route(request)
        builder.add(route.selected, route.aggregator)
        known.append((request, route))
    servers: dict[str, Loaded] = {}
    outcomes: list[dict[int, Candidate]] = [{} for _ in known]
    console.print(f"{len(lines)} questions routed in {time.perf_counter() - began:.1f} s")
    for expert in (*EXPERTS, AGGREGATOR):
        due = []
        for number, (request, route) in enumerate(known):
            for position, name in enumerate((*route.selected, *([route.aggregator] if route.aggregator else []))):
                if name == expert and (position < len(route.selected)) is (expert != AGGREGATOR):
                    with contextlib.suppress(NothingToAggregate):  # all candidates say the same
                        due.append((number, position, parts.lines.call(request, route, position, outcomes[number])))
        if not due:
            continue
        loading = time.perf_counter()
        await services.fleet.operations.start(expert, Deadline.after(600))
        load_s = time.perf_counter() - loading
        view = next(server for server in services.fleet.view().servers if server.id == services.fleet.operations.server_named(expert))
        card = services.directory.snapshot().experts[expert]
        bodies = {
            f"{number}-{position}": {**call.params, "model": services.fleet.seat_of(expert).model, "messages": list(call.messages)}  # type: ignore[union-attr]
            for number, position, call in due
        }
        assert view.status.base_url is not None
        await direct(view.status.base_url, dict(list(bodies.items())[:2]), 2)  # the first answers compile
        texts, seconds = await direct(view.status.base_url, bodies, card.max_in_flight)
        servers[expert] = Loaded(load_s, view.status.measured.memory_mb or 0.0, seconds, len(bodies), texts)
        for number, position, _ in due:
            outcomes[number][position] = candidate(expert, texts[f"{number}-{position}"])
        await services.fleet.operations.stop(expert, Deadline.after(60))
        console.print(f"{expert}: loaded in {load_s:.1f} s, {len(bodies)} calls in {seconds:.1f} s ({len(bodies) / seconds:.0f} a second)")
    seconds = time.perf_counter() - began
    answers = {
        str(line["custom_id"]): parts.lines.answer(request, route, outcomes[number]).choices[0].text
        for number, (line, (request, route)) in enumerate(zip(lines, known, strict=True))
    }
    return Grouped(builder.build(), servers, answers, seconds)


def candidate(expert: str, text: str) -> Candidate:
    from domain.chat import Choice
    from workers.reasoning import split_choice

    return Candidate(expert, (split_choice(Choice({"role": "assistant", "content": text})),))


# --- 2. and 3. -------------------------------------------------------------------------------------------------------


async def naive(services: Services, lines: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], float, int]:
    """The answers by custom id, the seconds and the loads: the online path, one question after the other."""
    shape, answers, before = services.batches.parts().shapes[ENDPOINT], dict[str, str](), services.fleet.num_loads
    began = time.perf_counter()
    for number, line in enumerate(lines):
        answer = await services.orchestrator.run(shape.request(line["body"], f"naive-{number}"))  # type: ignore[union-attr]
        answers[line["custom_id"]] = answer.choices[0].text
    return answers, time.perf_counter() - began, services.fleet.num_loads - before


async def run_batch(
    services: Services, lines: Sequence[Mapping[str, Any]], *, on_news: OnNews = lambda _news: None
) -> tuple[Batch, dict[str, str], float, int]:
    """The batch, its answers by custom id, the seconds and the loads."""

    async def pieces() -> AsyncIterator[bytes]:
        yield "".join(json.dumps(line) + "\n" for line in lines).encode()

    stored = await services.file_store.create("benchmark.jsonl", FilePurpose.BATCH, pieces())
    now = time.time()
    batch_id = f"batch_{time.monotonic_ns()}"
    batch = Batch(batch_id, ENDPOINT, stored.id, BatchState.VALIDATING, now, now + 86_400, runner=BatchRunner.COMMAND)
    await services.batch_store.create(batch)
    claimed = await services.batch_store.claim(ENGINE, lease_s=60, runner=BatchRunner.COMMAND, batch_id=batch_id)
    assert claimed is not None
    before, began = services.fleet.num_loads, time.perf_counter()
    over = await services.batches.engine(ENGINE, lease_s=60).run(claimed, on_news)
    seconds = time.perf_counter() - began
    answers: dict[str, str] = {}
    if over.output_file_id is not None:
        with await services.file_store.open(over.output_file_id) as file:
            for raw in file:
                line = json.loads(raw)
                answers[line["custom_id"]] = line["response"]["body"]["choices"][0]["message"]["content"]
    return over, answers, seconds, services.fleet.num_loads - before


def bound_s(table: RouteTable, servers: Mapping[str, Loaded], memory_mb: float) -> float:
    """Seconds of the engine's own plan, with loads as long as alone and calls at the direct rate."""
    host = Host(
        (Device("processors", memory_mb),),
        {name: Server(name, loaded.memory_mb, loaded.load_s) for name, loaded in servers.items()},
        {name: BatchExpert(name, loaded.call_s, name, aggregation_s=loaded.call_s) for name, loaded in servers.items()},
    )
    return plan_batch(table, host).prediction.total_s


# --- one server ------------------------------------------------------------------------------------------------------


async def throughput(services: Services, questions: Sequence[str], rounds: int) -> tuple[list[float], list[float]]:
    """Calls a second of one server: driven directly, and by the engine with the same prompts at the same concurrency, in turns."""
    expert, questions = EXPERTS[0], [*questions] * _TIMES_AS_MANY
    card = services.directory.snapshot().experts[expert]
    lines = [{**line, "body": {**line["body"], "consilium": {}}} for line in lines_of(questions, model=expert)]
    await services.fleet.operations.start(expert, Deadline.after(600))
    view = next(server for server in services.fleet.view().servers if server.id == services.fleet.operations.server_named(expert))
    assert view.status.base_url is not None
    base_url, model = view.status.base_url, services.fleet.seat_of(expert).model  # type: ignore[union-attr]
    bodies = {line["custom_id"]: {**card.sampling, "model": model, "messages": line["body"]["messages"]} for line in lines}
    by_hand, by_engine = list[float](), list[float]()
    by_news: list[float] = []
    for number in range(rounds + 1):
        _, seconds = await direct(base_url, bodies, card.max_in_flight)
        await run_batch(services, lines, on_news=partial(_note_running, by_news))
        if number:  # the first round warms both up
            by_hand.append(len(lines) / seconds)
            by_engine.append(len(lines) / (by_news[-1] - by_news[0]))
        by_news.clear()
    return by_hand, by_engine


def _note_running(moments: list[float], news: BatchNews) -> None:
    """When the calls began, and when everything that they answered was durable."""
    if news.phase in {Phase.RUNNING, Phase.WRITING}:
        moments.append(time.perf_counter())


async def main() -> int:
    parser = argparse.ArgumentParser(description="A batch: naive, grouped, planned.")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--naive", type=int, default=6, help="questions that the naive run is measured on")
    parser.add_argument("--rounds", type=int, default=7, help="of the comparison on one server")
    parser.add_argument("--check", action="store_true", help="status 1 when a target is missed")
    arguments = parser.parse_args()
    console = Console(width=120)
    rows = [question for question, _ in read_labelled_rows(ROOT / "zoo" / "test.jsonl", also=("tricky",))]
    rows = [row for row in rows if row.category in EXPERTS and not row.history]
    questions = [row.question for row in rows[:: max(1, len(rows) // arguments.questions)]][: arguments.questions]
    lines = lines_of(questions)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with services_on(folder, memory_mb=_BIG_MB) as services:
            alone = await grouped(services, lines, console)
            rates = await throughput(services, questions, arguments.rounds)
            needed = [s.picture.memory_mb for s in services.fleet.view().servers]
        servers, grouped_s = alone.servers, alone.seconds
        # What a server is given from now on is what was measured, and room for its keys and values.
        memory_mb = 2.2 * max((loaded.memory_mb + 1024.0 for loaded in servers.values()), default=max(needed))
        async with services_on(folder, memory_mb=memory_mb) as services:
            batch, answers, engine_s, engine_loads = await run_batch(services, lines)
        async with services_on(folder, memory_mb=memory_mb) as services:
            online, naive_s, naive_loads = await naive(services, lines[: arguments.naive])
    scaled_s = naive_s / arguments.naive * len(lines)
    bound = bound_s(alone.table, servers, memory_mb)
    ok = {
        f"engine at least {MIN_SPEEDUP:g} times faster than naive": scaled_s / engine_s >= MIN_SPEEDUP,
        "engine not slower than grouped": engine_s <= grouped_s,
        f"engine within {MAX_OVER_BOUND:g} of the bound": engine_s <= MAX_OVER_BOUND * bound,
        "loads are distinct servers": engine_loads == len(servers),
        f"a server at {MIN_SHARE:.0%} of its direct rate": statistics.median(rates[1]) >= MIN_SHARE * statistics.median(rates[0]),
        "answers equal the online path's": all(answers.get(custom_id) == text for custom_id, text in online.items()),
        "every line answered": batch.counts.completed == len(lines),
    }
    show(console, lines, servers, arguments, scaled_s, naive_s, naive_loads, grouped_s, engine_s, engine_loads, bound, memory_mb)
    direct_rate, engine_rate = (statistics.median(values) for values in rates)
    share = engine_rate / direct_rate
    told = f"{direct_rate:.0f} a second directly, {engine_rate:.0f} by the engine ({share:.0%})"
    console.print(f"one server, {_TIMES_AS_MANY * len(lines):,} calls: {told}")
    equal = sum(answers.get(custom_id) == text for custom_id, text in online.items())
    same = sum(answers.get(custom_id) == text for custom_id, text in alone.answers.items())
    console.print(
        f"answers equal to the online path's: {equal} of {len(online)}; to those of the same calls made directly: {same} of {len(lines)}"
    )
    for target, reached in ok.items():
        console.print(f"{'reached' if reached else 'MISSED'}: {target}")
    return int(arguments.check and not all(ok.values()))


def show(console: Console, lines: Sequence[Any], servers: Mapping[str, Loaded], arguments: argparse.Namespace, *figures: float) -> None:
    scaled_s, naive_s, naive_loads, grouped_s, engine_s, engine_loads, bound, memory_mb = figures
    title = f"{len(lines)} questions, k = 3 and an aggregator, {memory_mb:,.0f} MB for servers"
    table = Table("run", "seconds", "loads", "against the engine", title=title)
    table.add_row(
        f"naive, one by one ({arguments.naive} measured in {naive_s:.0f} s, scaled)",
        f"{scaled_s:,.0f}",
        f"{naive_loads / arguments.naive * len(lines):.0f} (scaled)",
        f"{scaled_s / engine_s:.1f} x",
    )
    table.add_row("grouped by expert, one server at a time", f"{grouped_s:.0f}", str(len(servers)), f"{grouped_s / engine_s:.2f} x")
    table.add_row("engine", f"{engine_s:.0f}", f"{engine_loads:.0f} ({len(servers)} distinct servers)", "1")
    bound_row = "bound: loads on the critical path, calls at the direct rate"
    table.add_row(bound_row, f"{bound:.0f}", str(len(servers)), f"engine takes {engine_s / bound:.2f} of it")
    console.print(table)


if __name__ == "__main__":
    sys.exit(run_async(main()))  # the loop that the service has
