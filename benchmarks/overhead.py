"""What a gateway costs: ``make peers && python benchmarks/overhead.py [--rounds N] [--seconds S] [--check]``.

One mock upstream, one process for each gateway, one load generator, all on this machine: straight to the upstream, through Consilium to an
expert by name and by `auto` (encoder and all; no question is asked twice while it could be remembered), through LiteLLM's proxy and
through Portkey's gateway, none with a key. Every round measures each in turn, at 1 and at 64 keep-alive connections, plain and streamed.
What is *added* is a way's quantile minus the direct one of the same round; figures are medians over rounds.

Then one process of Consilium against two. ``--check`` ends with status 1 when a target is missed, or cannot be told because a peer is not
installed or the machine is busy.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Sample, added, median, sample_of, turn
from benchmarks.gateways import Gateway, PeerMissing, consilium, litellm, pin, portkey, use_of
from benchmarks.load import Load, Plan, Target, run_load, write_bodies
from benchmarks.mock_upstream import MODEL, Pace, Upstream, mock_upstream
from benchmarks.routing import Texts

DIRECT, EXPLICIT, AUTO, LITELLM, PORTKEY = "direct", "Consilium, expert by name", "Consilium, auto", "LiteLLM proxy", "Portkey gateway"
FEW, MANY = 1, 64
NUM_TEXTS = 16_000
"""Questions, asked in turn: more than the encoder remembers (8,192 vectors), so that `auto` encodes every one."""
PACE = Pace(10, 0.02)
"""Of streams: 50 pieces a second, as an expert on one GPU writes."""
WARM_UP_S = 2.0
MAX_OF_PORTKEY, MIN_RATE_OF_PORTKEY, MIN_RATE_OF_LITELLM, MAX_AUTO_OF_LITELLM, MIN_SCALING = 0.6, 2.0, 15.0, 0.5, 1.7
MAX_OTHERS = 0.1
"""Share of the processors; when other programs take more, rates say more about them than about what is measured."""
ONE, TWO, ONE_CORE = "one process", "two processes", "one process, everything on one core"


@dataclass
class Way:
    """A gateway, and the file of what it is asked."""

    gateway: Gateway
    bodies: str
    streamed: str
    upstream_pid: int
    num_asked: int = 0
    resident_mb: float = 0.0
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failure: str = ""

    async def measure(self, connections: int, seconds: float, *, streamed: bool = False, cpus: Sequence[int] = ()) -> Sample:
        plan = Plan(
            self.gateway.target,
            self.streamed if streamed else self.bodies,
            connections,
            seconds=seconds,
            num_chunks=PACE.num_chunks if streamed else 0,
            skip=self.num_asked,
        )
        before, busy_before = use_of(self.gateway), busy_of(self.upstream_pid)
        load = await run_load(plan, cpus=cpus)
        after, busy_after = use_of(self.gateway), busy_of(self.upstream_pid)
        used_s = after.processor_s - before.processor_s
        self.resident_mb = after.resident_mb
        self.num_asked += load.num_done + load.num_failed
        self._note(load)
        busy_s, all_s, mock_s = (now - then for now, then in zip(busy_after, busy_before, strict=True))
        others = max(0.0, busy_s - mock_s - used_s - load.processor_s) / all_s if all_s else 0.0
        return sample_of(load, processor_s=used_s, streamed=streamed, others=others)

    def _note(self, load: Load) -> None:
        self.failure = self.failure or load.failure


def busy_of(upstream_pid: int) -> tuple[float, float, float]:
    """Seconds of processor time since the machine's start: busy, all of it, and the upstream's."""
    times, mock = psutil.cpu_times(), psutil.Process(upstream_pid).cpu_times()
    return sum(times) - times.idle - times.iowait, sum(times), mock.user + mock.system


def way_of(gateway: Gateway, model: str, texts: Sequence[str], folder: Path, *, name: str, upstream: Upstream) -> Way:
    plain = write_bodies(folder / f"{name}.jsonl", model, texts, stream=False)
    streamed = write_bodies(folder / f"{name}-streamed.jsonl", model, texts, stream=True)
    return Way(gateway, str(plain), str(streamed), upstream.pid)


async def ways_to(upstream: Upstream, texts: Sequence[str], folder: Path, stack: AsyncExitStack, console: Console) -> dict[str, Way]:
    """Every way, started; a peer that is not installed is left out, and told."""
    ours = await stack.enter_async_context(consilium(upstream))
    direct = Gateway(DIRECT, Target(upstream.port), MODEL)
    ways = {
        DIRECT: way_of(direct, MODEL, texts, folder, name="direct", upstream=upstream),
        EXPLICIT: way_of(ours, ours.model, texts, folder, name="explicit", upstream=upstream),
        AUTO: way_of(ours, "auto", texts, folder, name="auto", upstream=upstream),
    }
    for name, start in ((LITELLM, litellm), (PORTKEY, portkey)):
        try:
            peer = await stack.enter_async_context(start(upstream))
        except PeerMissing as missing:
            console.print(str(missing))
        else:
            ways[name] = way_of(peer, peer.model, texts, folder, name=name.split()[0], upstream=upstream)
    return ways


async def compare(ways: Mapping[str, Way], rounds: int, seconds: float) -> None:
    """Every way in turn, *rounds* times; into their ``samples``."""
    for way in ways.values():
        await way.measure(8, WARM_UP_S)
        await way.measure(8, WARM_UP_S / 2, streamed=True)
    for number in range(rounds):
        for name in turn(list(ways), number):
            way = ways[name]
            for kind, connections, streamed in (
                ("plain", FEW, False), ("plain", MANY, False), ("streamed", FEW, True), ("streamed", MANY, True),
            ):  # fmt: skip
                sample = await way.measure(connections, seconds, streamed=streamed)
                way.samples.setdefault(f"{kind} {connections}", []).append(sample)


def show_plain(console: Console, ways: Mapping[str, Way], rounds: int, seconds: float) -> None:
    direct = ways[DIRECT].samples
    title = f"Added to the upstream's own time, ms: medians of {rounds} rounds of {seconds:g} s (least to most)"
    table = Table("way", title=title)
    columns = (
        "p50 at 1",
        "p99 at 1",
        "p50 at 64",
        "p99 at 64",
        "requests/s at 64",
        "CPU ms a request",
        "a CPU second",
        "resident MB",
        "failed",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for name, way in ways.items():
        few, many = way.samples[f"plain {FEW}"], way.samples[f"plain {MANY}"]
        rate, failed = f"{median(many, 'rate'):,.0f}", str(sum(sample.num_failed for samples in way.samples.values() for sample in samples))
        if name == DIRECT:
            own = [f"{median(samples, figure):.2f}" for samples in (few, many) for figure in ("p50", "p99")]
            table.add_row("direct (all of it)", *own, rate, f"{median(many, 'load_ms'):.3f} (load)", "", "", failed)
            continue
        processor_ms = median(many, "processor_ms")
        table.add_row(
            name,
            str(added(few, direct[f"plain {FEW}"], "p50")),
            f"{added(few, direct[f'plain {FEW}'], 'p99').median:.2f}",
            *(f"{added(many, direct[f'plain {MANY}'], figure).median:.1f}" for figure in ("p50", "p99")),
            rate, f"{processor_ms:.2f}", f"{1e3 / processor_ms:,.0f}", f"{way.resident_mb:.0f}", failed,
        )  # fmt: skip
    console.print(table)


def show_streamed(console: Console, ways: Mapping[str, Way]) -> None:
    direct = ways[DIRECT].samples
    title = f"Streams of {PACE.num_chunks} pieces, {PACE.interval_s * 1e3:g} ms apart: added, ms"
    table = Table("way", title=title)
    for column in ("first piece at 1", "each piece at 1", "first piece at 64", "p99", "each piece at 64", "p99", "CPU ms a stream"):
        table.add_column(column, justify="right")
    for name, way in ways.items():
        few, many = way.samples[f"streamed {FEW}"], way.samples[f"streamed {MANY}"]
        asked = ((few, "p50"), (few, "chunk_p50"), (many, "p50"), (many, "p99"), (many, "chunk_p50"), (many, "chunk_p99"))
        if name == DIRECT:
            table.add_row("direct (all of it)", *(f"{median(samples, figure):.2f}" for samples, figure in asked), "")
            continue
        figures = [
            f"{added(samples, direct[f'streamed {FEW if samples is few else MANY}'], figure).median:.2f}" for samples, figure in asked
        ]
        table.add_row(name, *figures, f"{median(many, 'processor_ms'):.2f}")
    console.print(table)


def targets(ways: Mapping[str, Way]) -> dict[str, bool | None]:
    """Each target and whether it is reached; None when its peer is missing."""
    direct = ways[DIRECT].samples[f"plain {FEW}"]

    def p50(name: str) -> float:
        return added(ways[name].samples[f"plain {FEW}"], direct, "p50").median

    def rate(name: str) -> float:
        return median(ways[name].samples[f"plain {MANY}"], "rate")

    told: dict[str, bool | None] = {}

    def judge(peer: str, wanted: str, share: float | None, *, at_most: float | None = None, at_least: float | None = None) -> None:
        if share is None:
            told[f"{wanted} ({peer} is not installed)"] = None
        else:
            told[f"{wanted} (seen: {share:.2f})"] = share <= at_most if at_most is not None else share >= (at_least or 0.0)

    has = {peer: peer in ways for peer in (LITELLM, PORTKEY)}
    wanted = f"by name, added p50 at one connection at most {MAX_OF_PORTKEY} of Portkey's"
    judge(PORTKEY, wanted, p50(EXPLICIT) / p50(PORTKEY) if has[PORTKEY] else None, at_most=MAX_OF_PORTKEY)
    wanted = f"by name, requests/s at {MANY} at least {MIN_RATE_OF_PORTKEY:g} times Portkey's"
    judge(PORTKEY, wanted, rate(EXPLICIT) / rate(PORTKEY) if has[PORTKEY] else None, at_least=MIN_RATE_OF_PORTKEY)
    wanted = f"by name, requests/s at {MANY} at least {MIN_RATE_OF_LITELLM:g} times LiteLLM's"
    judge(LITELLM, wanted, rate(EXPLICIT) / rate(LITELLM) if has[LITELLM] else None, at_least=MIN_RATE_OF_LITELLM)
    wanted = f"auto, added p50 at one connection under {MAX_AUTO_OF_LITELLM} of LiteLLM's"
    judge(LITELLM, wanted, p50(AUTO) / p50(LITELLM) if has[LITELLM] else None, at_most=MAX_AUTO_OF_LITELLM)
    told["no request failed"] = not any(s.num_failed for way in ways.values() for samples in way.samples.values() for s in samples)
    return told


async def scaling(
    console: Console, upstream: Upstream, texts: Sequence[str], folder: Path, *, rounds: int, seconds: float
) -> dict[str, bool | None]:
    """One process against two, at 64 connections.

    The load generator and the upstream need processors too. On a machine of two they take from the second process what the first never
    missed; so one process is also measured with everything on one core, against two processes with everything on two: that is judged.
    Where other programs use the processors, nothing can be told but what a request costs of them.
    """
    cores = sorted(os.sched_getaffinity(0))[:2]
    async with consilium(upstream) as one, consilium(upstream, workers=2) as two:
        ways = {
            ONE: way_of(one, one.model, texts, folder, name="one", upstream=upstream),
            TWO: way_of(two, two.model, texts, folder, name="two", upstream=upstream),
        }
        ways[ONE_CORE] = Way(one, ways[ONE].bodies, ways[ONE].streamed, upstream.pid)
        samples: dict[str, list[Sample]] = {name: [] for name in ways}
        for number in range(-1, rounds):
            for name in turn(list(ways), max(0, number)):
                cpus = cores[:1] if name == ONE_CORE else cores
                for pid in (upstream.pid, ways[name].gateway.pid):
                    pin(pid, cpus)
                sample = await ways[name].measure(MANY, seconds, cpus=cpus)
                if number >= 0:  # the round before the first one warms up
                    samples[name].append(sample)
        pin(upstream.pid, sorted(os.sched_getaffinity(0)))
    rates = {name: median(of, "rate") for name, of in samples.items()}
    costs = {name: median(of, "processor_ms") for name, of in samples.items()}
    table = Table("Consilium, expert by name", title=f"Processes, {MANY} connections, two cores for everything")
    for column in ("requests/s", "CPU ms a request", "of the load generator", "resident MB"):
        table.add_column(column, justify="right")
    for name, way in ways.items():
        load_ms = median(samples[name], "load_ms")
        table.add_row(name, f"{rates[name]:,.0f}", f"{costs[name]:.3f}", f"{load_ms:.3f}", f"{way.resident_mb:.0f}")
    console.print(table)
    plain, alike, by_cost = rates[TWO] / rates[ONE], rates[TWO] / rates[ONE_CORE], 2 * costs[ONE] / costs[TWO]
    others = max(median(of, "others") for of in samples.values())
    console.print(
        f"Two processes on two cores carry {plain:.2f} times what one does with the load generator on the other core, and {alike:.2f} "
        "times what one does when the load generator and the upstream share its core as they share theirs. By the processor time of a "
        f"request two could carry {by_cost:.2f} times as much on cores of their own. Other programs had {others:.0%} of the processors."
    )
    wanted = f"two processes at least {MIN_SCALING} times one"
    if others > MAX_OTHERS:
        return {f"{wanted} (the second core is not free)": None}
    return {f"{wanted} (seen: {alike:.2f})": alike >= MIN_SCALING}


async def main() -> int:
    parser = argparse.ArgumentParser(description="What a gateway costs.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement; there are four for each way and round")
    parser.add_argument("--check", action="store_true", help="status 1 when a target is missed")
    arguments = parser.parse_args()
    console = Console(width=160)
    source = Texts("train", seed=5)
    texts = [source.question() for _ in range(NUM_TEXTS)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with mock_upstream(PACE) as upstream:
            async with AsyncExitStack() as stack:
                ways = await ways_to(upstream, texts, folder, stack, console)
                await compare(ways, arguments.rounds, arguments.seconds)
            ok = await scaling(console, upstream, texts, folder, rounds=arguments.rounds, seconds=arguments.seconds)
    show_plain(console, ways, arguments.rounds, arguments.seconds)
    show_streamed(console, ways)
    others = max(median(samples, "others") for way in ways.values() for samples in way.samples.values())
    if others > MAX_OTHERS:
        console.print(f"Other programs had up to {others:.0%} of the processors: times and rates are those of a busy machine.")
    for name, way in ways.items():
        if way.failure:
            console.print(f"{name}, the first failure: {way.failure}", markup=False)
    ok = {**targets(ways), **ok}
    for target, reached in ok.items():
        console.print(f"{'reached' if reached else 'MISSED' if reached is not None else 'NOT TOLD'}: {target}", highlight=False)
    return int(arguments.check and not all(ok.values()))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
