"""Panels under pressure, over the real pool: fewer experts are asked before anybody is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from domain.deadline import Deadline
from domain.experts import Backend
from domain.plan import ExpertCall
from domain.routing import PickRule
from domain.strategy import Strategy
from orchestrator.pipeline import Orchestrator
from tests.fakes.directory import FakeDirectory, FakeRouter, KeptTraces, card
from tests.fakes.workers import Says, ScriptedWorkers, Stalls
from tests.unit.orchestrator.test_pipeline import ask
from workers.pool import WorkerPool

PAIR = Strategy("pair", pick=PickRule("top_k", 2), aggregator="vote")
A = card("a", backend=Backend.OPENAI)
B = card("b", backend=Backend.OPENAI, max_in_flight=1, max_queued=0)
"""One call at a time, and nobody may wait."""


class Scripted(ScriptedWorkers):
    """As a backend of the pool."""

    async def start(self) -> None:
        """It runs."""

    async def close(self) -> None:
        """Nothing is held."""


class World:
    def __init__(self, strategy: Strategy) -> None:
        self.backend, self.sink = Scripted({"a": "2", "b": Stalls(Says("2"))}), KeptTraces()
        self.pool = WorkerPool(embedded_dir=Path(), backends={Backend.OPENAI: lambda _: self.backend})  # type: ignore[dict-item]
        self.orchestrator = Orchestrator(
            directory=FakeDirectory([A, B], strategies=[strategy]),
            routers={"skills": FakeRouter("a", "b")},
            workers=self.pool,
            sinks=[self.sink],
            load=self.pool,
        )

    async def statuses(self) -> dict[str, str]:
        """How each call of one request for the strategy has ended."""
        await self.orchestrator.run(ask("consilium/pair"))
        return {call.expert_id: call.status for call in self.sink.traces[-1].calls}


@pytest.mark.parametrize(
    ("strategy", "under_pressure"),
    [(PAIR, {"a": "ok", "b": "error"}), (replace(PAIR, shed_from_load=1.0), {"a": "ok"})],
    ids=["as it was selected", "shedding"],
)
async def test_whoever_has_no_place_left_is_not_asked_and_is_asked_again_when_there_is_one(
    strategy: Strategy, under_pressure: dict[str, str]
) -> None:
    world = World(strategy)
    held = asyncio.create_task(world.pool.complete(ExpertCall(B, ask().messages, {}, Deadline.after(60.0), "other")))
    await world.backend.until_started("b")

    assert await world.statuses() == under_pressure

    world.backend.release("b")
    await held
    assert await world.statuses() == {"a": "ok", "b": "ok"}
