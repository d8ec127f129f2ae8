"""The short chaos run: every kind of fault once, in a fixed order, under load; judged as the long one (``benchmarks/chaos.py``)."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.chaos import chaos
from benchmarks.chaos_world import DATABASE, DATABASE_FAULTS, EXPERT_FAULTS, Event, chaos_world

SECONDS = 24.0
EACH_S = 4.0
"""Of an expert's fault; its circuit opens and closes meanwhile."""


def every_fault() -> list[Event]:
    """Two experts take turns at the faults, and the database is broken beside them."""
    events = []
    for number, fault in enumerate(EXPERT_FAULTS):
        row, column = divmod(number, 2)
        events.append(Event(0.5 + row * EACH_S, EACH_S - 1.0, ("alpha", "beta")[column], fault))
    for number, fault in enumerate(DATABASE_FAULTS):
        events.append(Event(1.0 + number * 5.5, 3.0, DATABASE, fault))
    return sorted(events, key=lambda event: event.at_s)


@pytest.mark.timeout(600)
def test_promises_are_kept_while_everything_breaks() -> None:
    async def run() -> dict[str, list[str]]:
        async with chaos_world() as world:
            done = await chaos(world, every_fault(), seconds=SECONDS, seed="short", num_clients=8)
        verdict = done.verdict
        assert verdict.num_owed > 50
        assert verdict.num_lines_answered > 0
        missed = {name for name, reached in verdict.targets.items() if not reached}
        shown = ("wrong", "hung", "untyped", "lost_traces", "lost_lines", "held", "unserved")
        return {name: getattr(verdict, name) for name in shown if getattr(verdict, name) and missed}

    assert asyncio.run(run()) == {}
