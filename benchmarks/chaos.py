"""Whether the service keeps its promises while what it stands on breaks: ``python benchmarks/chaos.py [--minutes M] [--seed N] [--check]``.

Two replicas on one PostgreSQL, six experts that say who they are, three of them behind proxies. Clients ask by name, through `auto`, a list
with a stand-in, a hedged one and a panel, half of it streamed, some leaving in the middle; batches run beside them. Meanwhile those three
experts and the database are killed, restarted, slowed, cut off, and made to talk nonsense, by a plan that the seed fixes. Each of the three
has an expert of its own that no fault ever meets and that may answer in its place.

Judged afterwards, from what clients saw and the database holds (``chaos_checks``): whose answers they are, deadlines, errors, traces, the
lines of batches, connections that nobody let go of, and how many requests were served that a healthy expert could serve. ``--check`` ends
with status 1 when one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.chaos_checks import TRACED, BatchSeen, Seen, Stored, Verdict, judge
from benchmarks.chaos_load import ask_until, run_batch
from benchmarks.chaos_world import Event, World, chaos_world, planned_events

BATCH_EVERY_S = 20.0
TRACES_PATIENCE_S = 90.0
"""After the last fault: a writer of traces that failed pauses for up to 30 s."""
HELD_PATIENCE_S = 30.0
_SHOWN = 8


@dataclass(frozen=True)
class Run:
    """What is judged, and what was done."""

    verdict: Verdict
    events: Sequence[Event]
    seconds: float


async def chaos(world: World, events: Sequence[Event], *, seconds: float, seed: str, num_clients: int) -> Run:
    """Break *world* by *events* under load for *seconds*, let it recover, and judge."""
    began = time.monotonic()
    end = began + seconds
    batches: list[asyncio.Task[BatchSeen | None]] = []

    async def hand_in() -> None:
        number = 0
        while True:
            batches.append(asyncio.create_task(run_batch(world.replicas, seed=f"{seed}-batch-{number}", until=end)))
            number += 1
            if time.monotonic() + BATCH_EVERY_S > end:
                return
            await asyncio.sleep(BATCH_EVERY_S)

    async with asyncio.TaskGroup() as group:
        asking = group.create_task(ask_until(end, world.replicas, seed=seed, num_clients=num_clients))
        group.create_task(world.break_things(events))
        group.create_task(hand_in())
    over = [batch for batch in await asyncio.gather(*batches) if batch is not None]
    seen = asking.result()
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        held = await world.held(client, HELD_PATIENCE_S)
    stored = await _stored(world, seen)
    return Run(judge(seen, over, stored, held), events, time.monotonic() - began)


async def _stored(world: World, seen: Sequence[Seen]) -> dict[str, list[Stored]]:
    """Every trace that there is to be, as soon as it is there; after a while those that there are."""
    marks = [one.question.mark for one in seen if one.status in TRACED]
    end = time.monotonic() + TRACES_PATIENCE_S
    while len(stored := await world.stored(marks)) < len(set(marks)) and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(1.0)
    return stored


def show(console: Console, run: Run) -> None:
    verdict = run.verdict
    by_fault = Table("target", "fault", "times", "seconds", title=f"{len(run.events)} faults in {run.seconds:.0f} s")
    kinds = sorted({(event.target, event.fault) for event in run.events})
    for target, fault in kinds:
        met = [event.for_s for event in run.events if (event.target, event.fault) == (target, fault)]
        by_fault.add_row(target, fault, str(len(met)), f"{sum(met):.0f}")
    console.print(by_fault)
    table = Table("", "number", title="what clients saw")
    rows = {
        "requests": verdict.num_asked,
        "answered": verdict.num_served,
        "a healthy expert could serve": verdict.num_owed,
        "of them served": verdict.num_owed_served,
        "streams that broke after their first token, and said so": verdict.num_interrupted,
        "lines of batches": verdict.num_lines,
        "of them answered": verdict.num_lines_answered,
    }
    for name, number in rows.items():
        table.add_row(name, f"{number:,}")
    if verdict.batch_seconds:
        table.add_row("seconds of a batch: median, longest", f"{median(verdict.batch_seconds):.0f}, {max(verdict.batch_seconds):.0f}")
    for status, number in sorted(verdict.statuses.items()):
        table.add_row(f"  {status}", f"{number:,}")
    console.print(table)
    for name in ("wrong", "hung", "untyped", "lost_traces", "lost_lines", "held", "unserved"):
        for found in getattr(verdict, name)[:_SHOWN]:
            console.print(f"{name}: {found}", markup=False, highlight=False, soft_wrap=True)
    for wanted, reached in verdict.targets.items():
        console.print(f"{'reached' if reached else 'MISSED'}: {wanted}", highlight=False)


async def main() -> int:
    parser = argparse.ArgumentParser(description="Whether the service keeps its promises while what it stands on breaks.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--check", action="store_true", help="status 1 when a target is missed")
    arguments = parser.parse_args()
    seconds = arguments.minutes * 60
    async with chaos_world() as world:
        events = planned_events(arguments.seed, seconds)
        run = await chaos(world, events, seconds=seconds, seed=f"s{arguments.seed}", num_clients=arguments.clients)
    show(Console(width=140), run)
    return int(arguments.check and not all(run.verdict.targets.values()))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
