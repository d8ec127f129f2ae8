"""What the pipeline itself takes of a panel, and when a streamed panel says its first word.

    python benchmarks/panel.py [--check]

Experts are scripted, in this process. First they answer at once: what is left is the pipeline's own time, for one expert by name, for a
panel of three that votes, and for one that is fused (targets: 3 ms p50). Then candidates and aggregator take the times of a script, one
of them never answers, and the panel is streamed: its first token should come when the slowest candidate that is waited for and the
aggregator's own first token have taken their time (target: within 10 %).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

from domain.chat import ChatRequest, Choice, ChoiceDelta, Chunk, Usage
from domain.experts import Backend, ExpertCard, ExpertRole, HealthState
from domain.plan import Candidate, ExpertCall, Outcome
from domain.registry import RegistrySnapshot
from domain.routing import PickRule, RoutingDecision, RoutingQuery, ScoredExpert
from domain.strategy import Strategy
from evaluation.report import Table
from orchestrator.answer import Progress
from orchestrator.pipeline import Orchestrator

MAX_OVERHEAD_MS = 3.0
MAX_LATE = 0.10
NUM_REQUESTS = 2000
NUM_STREAMS = 20
CANDIDATES = ("a", "b", "c")
_USAGE = Usage(10, 5)


class Experts:
    """``Workers`` that take a given time to the first word; by default none. None for a time: never."""

    def __init__(self, seconds: Mapping[str, float | None] | None = None) -> None:
        self._seconds = seconds or {}

    async def _wait(self, call: ExpertCall) -> None:
        seconds = self._seconds.get(call.expert.id, 0.0)
        if seconds is None:
            await asyncio.Event().wait()
        elif seconds:
            await asyncio.sleep(seconds)

    async def complete(self, call: ExpertCall) -> Candidate:
        await self._wait(call)
        return Candidate(call.expert.id, (Choice({"role": "assistant", "content": f"{call.expert.id} says so"}),), _USAGE)

    async def stream(self, call: ExpertCall) -> AsyncIterator[Chunk]:
        await self._wait(call)
        yield Chunk((ChoiceDelta({"content": "so"}),))
        yield Chunk((ChoiceDelta({}, finish_reason="stop"),), _USAGE)


class Registry:
    """``Directory`` of three candidates and an aggregator, all healthy."""

    def __init__(self) -> None:
        roles = frozenset({ExpertRole.AGGREGATOR})
        cards = [
            *(ExpertCard(name, Backend.EMBEDDED, name) for name in CANDIDATES),
            ExpertCard("reader", Backend.EMBEDDED, "r", roles=roles),
        ]
        strategies = [
            Strategy("fused", router="best", pick=PickRule("top_k", 3)),
            Strategy("voted", router="best", pick=PickRule("top_k", 3), aggregator="vote"),
            Strategy("quorum", router="best", pick=PickRule("top_k", 3), quorum=2),
            Strategy("single", router="best", pick=PickRule("top_k", 1)),
        ]
        self._snapshot = RegistrySnapshot(1, experts={c.id: c for c in cards}, strategies={s.id: s for s in strategies})

    def snapshot(self) -> RegistrySnapshot:
        return self._snapshot

    def health_of(self, expert_id: str) -> HealthState:  # noqa: ARG002 - the port's signature
        return HealthState.CLOSED

    def begin_call(self, expert_id: str) -> int | None:  # noqa: ARG002
        return 1

    def record(self, outcome: Outcome, *, call: int | None = None) -> None:
        pass


class Best:
    """A router that takes the first k."""

    name = "best"

    def check_options(self, options: Mapping[str, Any]) -> None:
        pass

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:  # noqa: ARG002
        selected = tuple(card.id for card in query.experts)[: query.pick.k]
        return RoutingDecision(self.name, selected, tuple(ScoredExpert(name, 0.5, True) for name in selected))


def request(model: str, *, stream: bool = False) -> ChatRequest:
    return ChatRequest("r", model, ({"role": "user", "content": "How much is 1 + 1?"},), stream=stream)


def orchestrator(experts: Experts) -> Orchestrator:
    return Orchestrator(directory=Registry(), routers={"best": Best(), "explicit": Best()}, workers=experts)


async def own_ms(model: str) -> list[float]:
    """Milliseconds of each request, one after the other, with experts that answer at once."""
    pipeline, times = orchestrator(Experts()), list[float]()
    for _ in range(NUM_REQUESTS):
        began = time.perf_counter()
        await pipeline.run(request(model))
        times.append((time.perf_counter() - began) * 1e3)
    return times


async def first_token_ms(model: str, seconds: Mapping[str, float | None]) -> list[float]:
    """Milliseconds to the first token of each stream."""
    pipeline, times = orchestrator(Experts(seconds)), list[float]()
    for _ in range(NUM_STREAMS):
        began = time.perf_counter()
        stream = await pipeline.open_stream(request(model, stream=True))
        async for event in stream:
            if not isinstance(event, Progress):
                times.append((time.perf_counter() - began) * 1e3)
                break
        await stream.aclose()
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description="The pipeline's own time for a panel, and a streamed panel's first token.")
    parser.add_argument("--check", action="store_true", help="end with status 1 when a target is missed")
    arguments = parser.parse_args()
    rows, reached = list[tuple[str, ...]](), list[tuple[bool, str]]()
    for model, what in (("consilium/single", "one expert"), ("consilium/voted", "three, voted"), ("consilium/fused", "three, fused")):
        times = asyncio.run(own_ms(model))
        p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
        rows.append((what, f"{p50:.3f}", f"{p99:.3f}"))
        reached.append((p50 <= MAX_OVERHEAD_MS, f"{what}: {p50:.2f} ms p50, at most {MAX_OVERHEAD_MS:g}"))
    print(Table("The pipeline's own milliseconds", ("panel", "p50", "p99"), tuple(rows)).plain())
    timelines: tuple[tuple[str, str, dict[str, float | None], float], ...] = (
        ("consilium/fused", "all three are waited for", {"a": 0.1, "b": 0.2, "c": 0.3, "reader": 0.1}, 400.0),
        ("consilium/quorum", "a quorum of two, one stalled", {"a": 0.1, "b": 0.2, "c": None, "reader": 0.1}, 300.0),
    )
    rows = []
    for model, what, seconds, expected in timelines:
        p50 = statistics.median(asyncio.run(first_token_ms(model, seconds)))
        rows.append((what, f"{expected:.0f}", f"{p50:.1f}", f"{100 * (p50 / expected - 1):+.1f} %"))
        reached.append((p50 <= (1 + MAX_LATE) * expected, f"first token, {what}: {p50:.0f} ms of {expected:.0f}"))
    print(Table("First token of a streamed panel, ms", ("panel", "candidates + aggregator", "measured", "late"), tuple(rows)).plain())
    for is_reached, told in reached:
        print(f"{'reached' if is_reached else 'MISSED'}: {told}")
    return 1 if arguments.check and not all(is_reached for is_reached, _ in reached) else 0


if __name__ == "__main__":
    sys.exit(main())
