"""What planning a batch costs: ``python benchmarks/plan.py [--lines N] [--routed N] [--check]``.

100,000 lines × 3 candidates and an aggregator over 150 experts, none of which runs. The lines are read from a file, routed by
the skill router (their vectors are made before and looked up, so that the encoder's time is not in it), and planned. Then the
same lines on other hosts: how many loads there are against how many servers the plan has. ``--routed`` routes fewer lines and uses
their routes again for the rest; their time is scaled then. ``--check`` ends with status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.routing import Texts, registry, router_for
from domain.chat import ChatRequest
from domain.experts import ExpertCard
from domain.registry import RegistrySnapshot
from domain.routing import PickRule, RoutingQuery
from domain.skills import AggregatorProfile, LabelledQuestion, SkillCount
from domain.strategy import Strategy
from orchestrator.aggregation.base import AggregationContext
from orchestrator.aggregation.fuse import Fuse
from orchestrator.batch.host import BatchExpert, Device, Host, Server
from orchestrator.batch.plan import BatchPlan
from orchestrator.batch.planning import plan_batch
from orchestrator.batch.progress import CallState, Progress
from orchestrator.batch.routes import RouteTable, RouteTableBuilder
from orchestrator.batch.validation import validate_input
from routers.conversation import routed_text
from routers.encoder import DEFAULT_MODEL, Encoder
from routers.skills_router import SkillsRouter

MAX_PLANNING_S = 60.0
MAX_BYTES_PER_LINE = 4096
NUM_EXPERTS, NUM_AGGREGATORS, NUM_SKILLS, NUM_TEXTS, K = 150, 10, 200, 2000, 3
ENDPOINT = "/v1/chat/completions"
LOAD_S, CALL_S, SERVER_MB = 30.0, 1 / 133, 1_800.0
"""A zoo expert's vLLM server, as it was once measured on a CPU of two cores: seconds to load (29 to 35), seconds a call (133 answers a
second at 32 at a time), and MB."""

Route = tuple[tuple[str, ...], str]
"""Candidates and aggregator."""


class KnownVectors:
    """Looks vectors up that the encoder has made."""

    def __init__(self, encoder: Encoder, vectors: Mapping[str, Any]) -> None:
        self.encoder_id, self.dimensions, self._vectors = encoder.encoder_id, encoder.dimensions, vectors

    async def encode(self, texts: Sequence[str]) -> Any:
        return np.array([self._vectors[text] for text in texts], dtype=np.float32).reshape(-1, self.dimensions)


@dataclass(frozen=True, slots=True)
class World:
    """A registry whose experts were measured on every skill, and what routes in it."""

    snapshot: RegistrySnapshot
    candidates: Sequence[ExpertCard]
    """Everybody but those that aggregate."""
    router: SkillsRouter
    texts: Sequence[str]

    async def route(self, text: str) -> Route:
        request = ChatRequest("benchmark", "auto", ({"role": "user", "content": text},))
        query = RoutingQuery(request, self.candidates, PickRule("top_k", K), 0, options={"floor": -1.0})
        decision = await self.router.route(query, self.snapshot)
        aggregator = Fuse().expert_for(AggregationContext(request, Strategy("benchmark"), decision, self.snapshot, lambda _: True))
        return decision.selected, aggregator.id if aggregator else ""


async def world_of(encoder: Encoder) -> World:
    skills = [f"skill {number:03}" for number in range(NUM_SKILLS)]
    source = Texts("train", seed=4)
    questions = [
        LabelledQuestion(str(i), source.question(), "", f"domain {i % NUM_SKILLS % NUM_AGGREGATORS}", (skills[i % NUM_SKILLS],))
        for i in range(5 * NUM_SKILLS)
    ]
    texts = [source.question() for _ in range(NUM_TEXTS)]
    snapshot = registry(NUM_EXPERTS, skills, version=1)
    # The last ten aggregate and are never candidates; each was measured to be best in one domain, and better there than any candidate,
    # so that it is asked.
    profiles = {
        expert: AggregatorProfile(expert, {f"domain {number}": SkillCount(1000, 1000)}, SkillCount(500, 250))
        for number, expert in enumerate(list(snapshot.experts)[-NUM_AGGREGATORS:])
    }
    snapshot = RegistrySnapshot(1, 1, snapshot.experts, {}, snapshot.skills, snapshot.profiles, profiles)
    read = [part for text in texts for part in routed_text(({"role": "user", "content": text},)).texts]
    needed = [*read, *(question.question for question in questions), *skills]
    vectors: dict[str, Any] = {}
    for start in range(0, len(needed), 256):
        part = needed[start : start + 256]
        vectors |= dict(zip(part, await encoder.encode(part), strict=True))
    router = await router_for(KnownVectors(encoder, vectors), snapshot, questions)  # type: ignore[arg-type]
    candidates = [card for card in snapshot.experts.values() if card.id not in profiles]
    return World(snapshot, candidates, router, texts)


def write_input(path: Path, texts: Sequence[str], num_lines: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_lines):
            body = {"model": "auto", "messages": [{"role": "user", "content": texts[number % len(texts)]}]}
            file.write(json.dumps({"custom_id": f"request-{number:06}", "method": "POST", "url": ENDPOINT, "body": body}) + "\n")


def host_of(experts: Sequence[str], *, servers_that_fit: int, num_devices: int = 1) -> Host:
    return Host(
        devices=tuple(Device(f"device {number}", servers_that_fit * SERVER_MB) for number in range(num_devices)),
        servers={expert: Server(expert, SERVER_MB, LOAD_S) for expert in experts},
        experts={expert: BatchExpert(expert, CALL_S, expert) for expert in experts},
    )


def table_of(routes: Sequence[Route], num_lines: int) -> RouteTable:
    builder = RouteTableBuilder()
    for number in range(num_lines):
        builder.add(*routes[number % len(routes)])
    return builder.build()


def among_candidates(routes: Sequence[Route], snapshot: RegistrySnapshot) -> list[Route]:
    """The same routes with aggregators that are candidates of other lines, as in Symbolic-MoE."""
    ids = list(snapshot.experts)
    stand_in = dict(zip(ids[-NUM_AGGREGATORS:], ids, strict=False))
    return [(candidates, stand_in[aggregator]) for candidates, aggregator in routes]


class Stopwatch:
    """Seconds, and seconds of this process's processor time, which hold on a busy machine too."""

    def __enter__(self) -> Stopwatch:
        self._started = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.processor_s = time.perf_counter() - self._started[0], time.process_time() - self._started[1]


def half_done(table: RouteTable) -> Progress:
    progress = Progress(table)
    for call in range(table.num_calls // 2):
        progress.settle(call, CallState.ANSWERED)
    return progress


def told(ok: bool, target: str) -> str:
    return f"{'reached' if ok else 'MISSED'}: {target}"


async def collected(world: World, num_lines: int, num_routed: int) -> tuple[RouteTable, list[Route]]:
    """The table of every line, and the different routes in it."""
    builder, routes = RouteTableBuilder(), list[Route]()
    for number in range(num_lines):
        route = await world.route(world.texts[number % len(world.texts)]) if number < num_routed else routes[number % len(routes)]
        if number < min(num_routed, len(world.texts)):
            routes.append(route)
        builder.add(*route)
    return builder.build(), routes


def peak_bytes(path: Path, routes: Sequence[Route], num_lines: int, host: Host) -> int:
    """Most that reading, collecting and planning hold at once."""
    tracemalloc.start()
    with path.open("rb") as file:
        validate_input(file, ENDPOINT)
    plan_batch(table_of(routes, num_lines), host)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


async def costs(console: Console, world: World, num_lines: int, num_routed: int, path: Path) -> tuple[list[bool], list[Route]]:
    host, process = host_of(list(world.snapshot.experts), servers_that_fit=2), psutil.Process()
    write_input(path, world.texts, num_lines)
    await world.route(world.texts[0])  # the score table is made once per registry, not per batch
    gc.collect()
    rss_before = process.memory_info().rss
    with path.open("rb") as file, Stopwatch() as reading:
        report = validate_input(file, ENDPOINT)
    with Stopwatch() as routing:
        batch, routes = await collected(world, num_lines, num_routed)
    with Stopwatch() as planning:
        plan = plan_batch(batch, host)
    grown = (process.memory_info().rss - rss_before) / num_lines
    progress = half_done(batch)
    with Stopwatch() as again:
        plan_batch(batch, host, progress)
    peak = peak_bytes(path, routes, num_lines, host) / num_lines
    all_s = reading.seconds + routing.seconds * num_lines / num_routed + planning.seconds
    ok = [all_s < MAX_PLANNING_S, max(grown, peak) < MAX_BYTES_PER_LINE]
    title = f"{num_lines:,} lines × {K} candidates and an aggregator over {NUM_EXPERTS} experts: {plan.num_calls:,} calls"
    table = Table("step", "seconds", "processor", "processor, a line", "", title=title)

    def row(step: str, watch: Stopwatch, note: str = "", *, lines: int = num_lines) -> None:
        table.add_row(step, f"{watch.seconds:.2f}", f"{watch.processor_s:.2f}", f"{watch.processor_s / lines * 1e6:,.0f} µs", note)

    row("read and check the input file", reading, f"{report.num_requests:,} good")
    row("route (vectors known) and collect", routing, f"{num_routed:,} were routed", lines=num_routed)
    row("plan", planning)
    table.add_row("all three", f"{all_s:.2f}", "", f"{all_s / num_lines * 1e6:,.0f} µs", told(ok[0], "< 60 s"))
    row("plan again, half of the calls answered", again)
    table.add_row("memory: peak of reading, collecting, planning", "", "", f"{peak:,.0f} B", told(ok[1], "< 4,096 B"))
    table.add_row("memory: growth of the process, routing included", "", "", f"{grown:,.0f} B", "")
    console.print(table)
    return ok, routes


def loads(console: Console, snapshot: RegistrySnapshot, routes: Sequence[Route], num_lines: int) -> list[bool]:
    experts = list(snapshot.experts)
    own, shared = table_of(routes, num_lines), table_of(among_candidates(routes, snapshot), num_lines)
    rows: list[tuple[str, BatchPlan]] = [
        ("memory for 2 servers", plan_batch(own, host_of(experts, servers_that_fit=2))),
        ("memory for 1", plan_batch(own, host_of(experts, servers_that_fit=1))),
        ("4 devices, memory for 2 each", plan_batch(own, host_of(experts, servers_that_fit=2, num_devices=4))),
        ("aggregators are candidates, memory for 2", plan_batch(shared, host_of(experts, servers_that_fit=2))),
        (
            f"aggregators are candidates, for {NUM_AGGREGATORS + 1}",
            plan_batch(shared, host_of(experts, servers_that_fit=NUM_AGGREGATORS + 1)),
        ),
    ]
    table = Table("host", "servers", "copies", "loads", "again", "predicted", "loads on the path", title="Loads against servers")
    for name, plan in rows:
        predicted = plan.prediction
        table.add_row(
            name, str(len(plan.servers)), str(len(plan.copies)), str(plan.num_loads), str(len(plan.reloads)),
            f"{predicted.total_s / 60:.1f} min", f"{predicted.critical_load_s / 60:.1f} min",
        )  # fmt: skip
    console.print(table)
    again = next(plan for _, plan in rows if plan.reloads)
    console.print(f"The first that is loaded again: {again.reloads[0].why}.")
    return [plan.num_loads == len(plan.copies) for _, plan in (rows[0], rows[2], rows[4])]


async def main() -> int:
    parser = argparse.ArgumentParser(description="What planning a batch costs.")
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--routed", type=int, default=None, help="lines that are really routed; all by default")
    parser.add_argument("--check", action="store_true", help="status 1 when a target is missed")
    arguments = parser.parse_args()
    console = Console(width=140)
    with tempfile.TemporaryDirectory() as folder:
        encoder = Encoder.for_model(DEFAULT_MODEL, cache_dir=Path(folder), num_threads=os.cpu_count() or 1)
        await encoder.start()
        world = await world_of(encoder)
        await encoder.close()
        num_routed = max(1, min(arguments.routed or arguments.lines, arguments.lines))
        ok, routes = await costs(console, world, arguments.lines, num_routed, Path(folder) / "input.jsonl")
        ok += loads(console, world.snapshot, routes, arguments.lines)
    return int(arguments.check and not all(ok))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
