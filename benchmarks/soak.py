"""Many streams at once through one process: ``python benchmarks/soak.py [--streams N] [--seconds S] [--pace S] [--check]``.

*streams* connections, each of which asks for one stream after the other, of numbered pieces that the mock upstream sends *pace* apart.
They open one by one over the length of a stream, so that new streams begin evenly from then on; what begins before all are open is checked
but not timed. The same load goes straight to the mock first: *added* is Consilium's quantile minus that one's. Memory is that of the
process before, at its most, and when everything is over. ``--check`` ends with status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.figures import quantile
from benchmarks.gateways import Gateway, Use, consilium, use_of
from benchmarks.load import Load, Plan, Target, run_load, write_bodies
from benchmarks.mock_upstream import MODEL, Pace, mock_upstream

STREAM_S = 10.0
"""Length of one stream: so every tenth of the streams begins anew each second."""
DIRECT_S = 10.0
PACE_S = 0.5
"""2,000 pieces a second in all, and 100 new streams: half of what one process carries on a core of its own (0.17 ms of it a piece)."""
WARM_UP = 64
SETTLE_S = 30.0
"""How long after the end memory may take to be back."""
MAX_FIRST_MS, MAX_GROWTH = 250.0, 0.1
QUESTION = "How do 1,000 people listen at once?"


async def streams(target: Target, bodies: Path, pace: Pace, *, num: int, seconds: float, ramp_s: float) -> Load:
    plan = Plan(target, str(bodies), num, seconds=seconds, num_chunks=pace.num_chunks, ramp_s=ramp_s)
    return await run_load(plan)


async def soaked(gateway: Gateway, bodies: Path, pace: Pace, *, num: int, seconds: float) -> tuple[Load, Sequence[Use], float]:
    """What came of the load, what the process used (before, at its most, at the end of the load, settled), and how busy the machine was,
    in percent."""
    before = most = use_of(gateway)
    psutil.cpu_percent()  # the next call tells the share since this one
    running = asyncio.create_task(streams(gateway.target, bodies, pace, num=num, seconds=seconds, ramp_s=STREAM_S))
    while not running.done():
        await asyncio.wait({running}, timeout=0.5)
        now = use_of(gateway)
        most = max(most, now, key=lambda use: use.resident_mb)
    load, ended, end, busy = running.result(), use_of(gateway), time.monotonic() + SETTLE_S, psutil.cpu_percent()
    while (settled := use_of(gateway)).resident_mb > (1 + MAX_GROWTH) * before.resident_mb and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(1.0)
    return load, (before, most, ended, settled), busy


async def main() -> int:
    parser = argparse.ArgumentParser(description="Many streams at once through one process.")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0, help="with all of them open")
    parser.add_argument("--pace", type=float, default=PACE_S, help="seconds between two pieces of a stream")
    parser.add_argument("--check", action="store_true", help="status 1 when a target is missed")
    arguments = parser.parse_args()
    console = Console(width=120)
    pace = Pace(max(2, round(STREAM_S / arguments.pace)), arguments.pace)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"CONSILIUM_MAX_REQUESTS": str(2 * arguments.streams)}
        async with mock_upstream(pace) as upstream, consilium(upstream, variables=settings) as gateway:
            bodies = write_bodies(folder / "bodies.jsonl", gateway.model, [QUESTION], stream=True)
            direct_bodies = write_bodies(folder / "direct.jsonl", MODEL, [QUESTION], stream=True)
            target = Target(upstream.port)
            direct = await streams(target, direct_bodies, pace, num=arguments.streams, seconds=DIRECT_S, ramp_s=STREAM_S)
            await streams(gateway.target, bodies, pace, num=WARM_UP, seconds=1.0, ramp_s=0.0)
            load, uses, busy = await soaked(gateway, bodies, pace, num=arguments.streams, seconds=arguments.seconds)
    before, most, ended, settled = uses
    first_added = quantile(load.first, 0.99) - quantile(direct.first, 0.99)
    growth = settled.resident_mb / before.resident_mb - 1
    table = Table(
        "",
        "direct",
        "Consilium",
        title=f"{arguments.streams:,} streams at once, {pace.num_chunks} pieces each, {pace.interval_s:g} s apart",
    )
    rows = [
        ("seconds, opening included", f"{direct.seconds:.0f}", f"{load.seconds:.0f}"),
        ("most streams at once", f"{direct.max_open:,}", f"{load.max_open:,}"),
        ("streams complete and in order", f"{direct.num_done:,}", f"{load.num_done:,}"),
        ("failed; of them out of order", f"{direct.num_failed}; {direct.num_disordered}", f"{load.num_failed}; {load.num_disordered}"),
        ("pieces a second", *(f"{each.num_done * pace.num_chunks / each.seconds:,.0f}" for each in (direct, load))),
        ("time to first piece, ms: p50, p99", *(_quantiles(each.first) for each in (direct, load))),
        ("a piece on its way, ms: p50, p99", *(_quantiles(each.chunks) for each in (direct, load))),
        ("resident MB: before, most, after", "", f"{before.resident_mb:.0f}, {most.resident_mb:.0f}, {settled.resident_mb:.0f}"),
        ("processor used, share of a core", "", f"{(ended.processor_s - before.processor_s) / load.seconds:.0%}"),
        ("processors busy, all programs", "", f"{busy:.0f}%"),
    ]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if load.failure:
        console.print(f"the first failure: {load.failure}", markup=False)
    ok = {
        f"{arguments.streams:,} streams at once": load.max_open >= arguments.streams,
        "no stream failed": not load.num_failed and load.num_done > 0,
        "no piece out of order, missing or twice": not load.num_disordered,
        f"first piece, p99 added under {MAX_FIRST_MS:g} ms (seen: {first_added:.0f})": first_added < MAX_FIRST_MS,
        f"memory back to within {MAX_GROWTH:.0%} (seen: {growth:+.1%})": growth <= MAX_GROWTH,
    }
    for wanted, reached in ok.items():
        console.print(f"{'reached' if reached else 'MISSED'}: {wanted}", highlight=False)
    return int(arguments.check and not all(ok.values()))


def _quantiles(times: Sequence[float]) -> str:
    return f"{quantile(times, 0.5):.1f}, {quantile(times, 0.99):.1f}"


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
