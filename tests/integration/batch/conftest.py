"""A migrated SQLite database for each test, and what a batch needs on it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from domain.experts import ExpertCard, ExpertRole
from domain.routing import PickRule
from domain.strategy import Strategy
from experts_registry.database import Database
from tests.fakes.batch_rig import Fleet, Rig
from tests.fakes.directory import FakeDirectory, FakeRouter, card
from tests.fakes.workers import ScriptedWorkers

PANEL = Strategy(id="panel", pick=PickRule("top_k", k=3), aggregator="fuse")
VOTE = Strategy(id="vote", pick=PickRule("top_k", k=3), aggregator="vote")
CARDS = (*(card(name) for name in "abcd"), card("fuser", roles=frozenset({ExpertRole.AGGREGATOR})))

MakeRig = Callable[..., Rig]


@pytest.fixture
async def database(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Database]:
    shutil.copy(sqlite_template, tmp_path / "test.db")
    made = Database.connect(f"sqlite:///{tmp_path / 'test.db'}")
    yield made
    await made.close()


@pytest.fixture
def make_rig(database: Database, tmp_path: Path) -> MakeRig:
    def make(
        script: dict[str, Any],
        *selected: str,
        cards: tuple[ExpertCard, ...] = CARDS,
        choose: Callable[..., Any] | None = None,
        memory_mb: float = 100.0,
        **changes: Any,
    ) -> Rig:
        """*script* of the experts; *selected* (or *choose*) is whom the router takes."""
        routers = {"skills": FakeRouter(*selected, category="sums", choose=choose), "explicit": FakeRouter(name="explicit")}
        return Rig(
            database=database,
            folder=tmp_path / "files",
            directory=FakeDirectory(cards, strategies=(PANEL, VOTE)),
            routers=routers,
            workers=ScriptedWorkers(script),
            fleet=Fleet(cards, memory_mb=memory_mb),
            **changes,
        )

    return make
