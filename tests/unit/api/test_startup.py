"""Loading in the background, and what follows a change of the registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.auth import Auth
from api.metrics import Metrics
from api.readiness import Readiness
from api.services import Services
from api.settings import Settings
from api.startup import Startup
from domain.errors import ExpertUnreachable, NotReady, StorageError
from domain.experts import Backend, ExpertCard
from domain.registry import RegistrySnapshot

WAIT_S = 30.0


class Feedback:
    """The log and who follows it, in one."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def delete_before(self, moment: float) -> None:
        self.log.append(f"forget {moment:g}")

    async def reload(self) -> None:
        self.log.append("reload")

    async def keep_up(self, every_s: float) -> None:
        self.log.append(f"every {every_s:g} s")


@dataclass
class World:
    """Fakes for everything that is started. ``log`` has what happened, in order."""

    log: list[str] = field(default_factory=list)
    database_errors: list[Exception] = field(default_factory=list)
    encoder_errors: list[Exception] = field(default_factory=list)
    file_errors: list[Exception] = field(default_factory=list)
    index_errors: list[Exception] = field(default_factory=list)
    broken_experts: dict[str, Exception] = field(default_factory=dict)
    fleet_errors: list[Exception] = field(default_factory=list)
    fleet_told: list[list[str]] = field(default_factory=list)
    now: RegistrySnapshot = field(default_factory=RegistrySnapshot)
    callbacks: list[Callable[[RegistrySnapshot], None]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    feedback: Feedback = field(default_factory=Feedback)
    num_told_models: int = 0
    latencies: dict[str, float] = field(default_factory=dict)
    latency_errors: list[Exception] = field(default_factory=list)
    model_errors: list[Exception] = field(default_factory=list)
    before_models: list[str] | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Closed: the encoder takes for ever."""

    async def upgrade(self) -> None:
        if self.database_errors:
            raise self.database_errors.pop(0)
        self.log.append("upgrade")

    async def seed(self) -> None:
        self.log.append("seed")

    async def start(self) -> None:
        self.log.append("start")

    def subscribe(self, callback: Callable[[RegistrySnapshot], None]) -> None:
        self.callbacks.append(callback)

    def snapshot(self) -> RegistrySnapshot:
        return self.now

    async def refresh(self, snapshot: RegistrySnapshot, *_: Any) -> None:
        if self.index_errors:
            raise self.index_errors.pop(0)
        self.log.append(f"index {snapshot.version}")

    def changed(self) -> None:
        """The models are told of a change."""
        self.num_told_models += 1

    async def mean_latencies(self) -> dict[str, float]:
        if self.latency_errors:
            raise self.latency_errors.pop(0)
        return {"a": float(self.now.version)}

    def measured(self, latencies_ms: dict[str, float]) -> None:
        self.latencies = latencies_ms

    async def keep(self) -> None:
        """The models begin to follow the registry; what is there by then."""
        if self.model_errors:
            raise self.model_errors.pop(0)
        self.before_models = list(self.log)

    async def warm(self, cards: list[ExpertCard]) -> None:
        (card,) = cards
        if card.id in self.broken_experts:
            raise self.broken_experts[card.id]
        self.log.append(f"warm {card.id}")

    async def update(self, cards: Iterable[ExpertCard]) -> None:
        """What the fleet is told."""
        self.fleet_told.append(sorted(card.id for card in cards))
        if self.fleet_errors:
            raise self.fleet_errors.pop(0)

    async def delete_before(self, moment: float) -> None:
        self.log.append(f"sweep {moment:g}")

    async def sweep(self) -> None:
        if self.file_errors:
            raise self.file_errors.pop(0)
        self.log.append("sweep files")

    async def drop_lines_before(self, moment: float) -> None:
        self.log.append(f"drop lines {moment:g}")

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if seconds >= 3600:
            await asyncio.Event().wait()
        await asyncio.sleep(0)


class Usage:
    """Of keys; what it writes is no concern here."""

    async def start(self) -> None:
        pass


class EncoderOf:
    def __init__(self, world: World) -> None:
        self._world = world

    async def start(self) -> None:
        await self._world.gate.wait()
        if self._world.encoder_errors:
            raise self._world.encoder_errors.pop(0)
        self._world.log.append("encoder")


@asynccontextmanager
async def started(world: World, folder: Path, *, encoder: bool = True, **changes: Any) -> AsyncIterator[Services]:
    if encoder:
        world.gate.set()
    fake = cast(Any, world)
    services = Services(
        settings=Settings(_env_file=None, data_dir=folder, startup_retry_s=1, trace_days=1, **changes),  # type: ignore[call-arg]
        auth=Auth(api_keys=(), admin_key="x"),
        readiness=Readiness(),
        metrics=Metrics(),
        database=fake,
        expert_store=fake,
        strategy_store=fake,
        skill_store=fake,
        question_store=cast(Any, Questions()),
        profile_store=fake,
        trace_store=fake,
        traffic=fake,
        keys=cast(Any, SimpleNamespace(usage=Usage())),
        feedback_store=cast(Any, world.feedback),
        feedback=cast(Any, world.feedback),
        file_store=fake,
        batch_store=fake,
        memory=cast(Any, SimpleNamespace(live=SimpleNamespace(keep_up=asyncio.sleep))),
        directory=fake,
        encoder=cast(Any, EncoderOf(world)),
        index_holder=fake,
        models=fake,
        latencies=fake,
        routers=fake,
        workers=fake,
        fleet=fake,
        orchestrator=fake,
    )
    startup = Startup(services, seed=world.seed, sleep=world.sleep, now=lambda: 100_000.0)
    startup.begin()
    try:
        yield services
    finally:
        await startup.end()


class Questions:
    list = vectors = save_vectors = staticmethod(lambda: None)


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not fact():
            await asyncio.sleep(0)


def embedded(name: str, **changes: Any) -> ExpertCard:
    return ExpertCard(name, Backend.EMBEDDED, name, **changes)


def holding(version: int, *cards: ExpertCard) -> RegistrySnapshot:
    return RegistrySnapshot(version, version, {card.id: card for card in cards})


async def test_everything_becomes_ready(tmp_path: Path) -> None:
    """Migrate, seed, read the registry, load encoder, index and enabled experts; then ready."""
    remote = ExpertCard("remote", Backend.OPENAI, "m", base_url="http://127.0.0.1:1/v1")
    world = World(now=holding(1, embedded("a"), remote, embedded("off", enabled=False)))
    async with started(world, tmp_path) as services:
        await until(lambda: services.readiness.is_ready)

    assert world.log.index("upgrade") < world.log.index("seed") < world.log.index("start") < world.log.index("index 1")
    assert world.log.index("encoder") < world.log.index("index 1")
    assert [entry for entry in world.log if entry.startswith("warm")] == ["warm a", "warm remote"]


async def test_waits_for_the_encoder(tmp_path: Path) -> None:
    """Until the encoder is there, the readiness says so and the index waits."""
    world = World()
    async with started(world, tmp_path, encoder=False) as services:
        await until(lambda: services.readiness.is_done("experts"))
        assert services.readiness.missing == {"encoder": "loading", "index": "waiting for the database and the encoder"}
        world.gate.set()
        await until(lambda: services.readiness.is_ready)


async def test_database_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A database that is not there yet is tried again with growing waits, and its reason is told."""
    world = World(database_errors=[StorageError("connection refused"), StorageError("connection refused"), ZeroDivisionError()])
    async with started(world, tmp_path) as services:
        await until(lambda: services.readiness.is_ready)

    assert world.slept[:3] == [1, 2, 4]
    assert "connection refused" in caplog.text


async def test_reason_is_shown_while_waiting(tmp_path: Path) -> None:
    """``/ready`` tells why a part is not there."""
    world = World(encoder_errors=[NotReady("no such model folder: x")] * 1000)
    async with started(world, tmp_path) as services:
        await until(lambda: bool(world.slept))
        assert services.readiness.missing["encoder"] == "no such model folder: x"


@pytest.mark.parametrize("error", [ExpertUnreachable("weights are missing"), ValueError("weights are missing")])
async def test_broken_expert_does_not_stop_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    """An embedded expert that cannot be loaded is named in the log; the others are loaded and the service is ready."""
    world = World(now=holding(1, embedded("broken"), embedded("fine")), broken_experts={"broken": error})
    async with started(world, tmp_path) as services:
        await until(lambda: services.readiness.is_ready)

    assert "warm fine" in world.log
    assert "broken cannot be loaded: weights are missing" in caplog.text


async def test_change_rebuilds_the_index_and_loads_new_experts(tmp_path: Path) -> None:
    """After a change only what is new is loaded, and many changes at once lead to one rebuild."""
    world = World(now=holding(1, embedded("a"), embedded("b")))
    async with started(world, tmp_path) as services:
        await until(lambda: services.readiness.is_ready)
        world.now = holding(4, embedded("a"), replace(embedded("b"), model="b2", version=2), embedded("c"))
        world.log.clear()
        for _ in range(3):
            world.callbacks[0](world.now)
        await until(lambda: "warm c" in world.log and "index 4" in world.log)

    assert sorted(world.log) == ["index 4", "warm b", "warm c"]


async def test_failed_rebuild_keeps_the_service_ready(tmp_path: Path) -> None:
    """While the index cannot be rebuilt the old one is used; the rebuild is tried again."""
    world = World(now=holding(1))
    async with started(world, tmp_path) as services:
        await until(lambda: services.readiness.is_ready)
        world.index_errors = [StorageError("locked")]
        world.now = holding(2)
        world.callbacks[0](world.now)
        await until(lambda: not world.index_errors)
        assert services.readiness.is_ready
        await until(lambda: "index 2" in world.log)


async def test_old_traces_are_deleted(tmp_path: Path) -> None:
    """Traces older than the setting are deleted at the start, then every hour."""
    world = World()
    async with started(world, tmp_path):
        await until(lambda: "sweep 13600" in world.log and 3600 in world.slept)


@pytest.mark.parametrize("feedback", [True, False])
async def test_feedback_is_followed_where_it_is_wanted_and_forgotten_when_it_is_old(tmp_path: Path, feedback: bool) -> None:
    world = World()
    async with started(world, tmp_path, feedback=feedback, feedback_days=1):
        await until(lambda: "reload" in world.feedback.log)

    assert "forget 13600" in world.feedback.log
    assert ("every 1 s" in world.feedback.log) is feedback


async def test_old_files_and_lines_of_batches_are_deleted(tmp_path: Path) -> None:
    """At the start, then every hour; a database that is locked is tried again then."""
    world = World()
    async with started(world, tmp_path, file_days=0.5):
        await until(lambda: "drop lines 56800" in world.log and world.slept.count(3600) == 3)

    assert "sweep files" in world.log


@pytest.mark.parametrize("kind", [StorageError, ValueError])
async def test_a_failed_sweep_of_files_is_told_and_waits_for_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    """A fault of ours as well: the task would be gone without a word, and files would fill the disk."""
    world = World(file_errors=[kind("the database is locked")])
    async with started(world, tmp_path):
        await until(lambda: world.slept.count(3600) == 3)

    assert "old files and batches were not deleted: the database is locked" in caplog.text


async def test_the_fleet_is_told_the_experts_at_first_and_after_every_change(tmp_path: Path) -> None:
    """A fault there neither keeps the service from becoming ready nor the next change from being told."""
    world = World(now=holding(1, embedded("a")), fleet_errors=[RuntimeError("a bug")])

    async with started(world, tmp_path) as services:
        await until(lambda: services.readiness.is_ready)
        await until(lambda: bool(world.fleet_told))
        world.now = holding(2)
        world.callbacks[0](world.now)
        await until(lambda: len(world.fleet_told) == 2)

    assert world.fleet_told == [["a"], []]


@pytest.mark.parametrize("run_batches", [True, False])
async def test_batches_run_when_everything_is_there_and_not_before(tmp_path: Path, run_batches: bool) -> None:
    """A plan that is made before the fleet knows its servers would load them as if there were no plan."""
    world, may_update = World(now=holding(1, embedded("a"))), asyncio.Event()

    class Batches:
        service = property(lambda self: self)

        async def run(self) -> None:
            world.log.append("batches")

    async def update(cards: Iterable[ExpertCard]) -> None:
        await may_update.wait()

    world.update = update  # type: ignore[method-assign]
    async with started(world, tmp_path, run_batches=run_batches) as services:
        services.batches = cast(Any, Batches())
        await until(lambda: services.readiness.is_ready)
        for _ in range(20):
            await asyncio.sleep(0)
        assert "batches" not in world.log
        may_update.set()
        for _ in range(20):
            await asyncio.sleep(0)

    assert ("batches" in world.log) == run_batches


async def test_models_follow_the_registry_once_the_index_is_there_and_are_told_of_every_change(tmp_path: Path) -> None:
    """The index stores the vectors that they are fitted on."""
    world = World(now=holding(1))
    async with started(world, tmp_path):
        await until(lambda: world.before_models is not None)
        world.callbacks[0](world.now)

    assert "index 1" in (world.before_models or [])
    assert world.num_told_models == 1


async def test_measured_latencies_are_told_at_the_start_and_after_a_change(tmp_path: Path) -> None:
    world = World(now=holding(1))
    async with started(world, tmp_path):
        await until(lambda: world.latencies == {"a": 1.0})
        world.now = holding(2)
        world.callbacks[0](world.now)
        await until(lambda: world.latencies == {"a": 2.0})


@pytest.mark.parametrize("error", [StorageError("locked"), ValueError("a bug")])
async def test_latencies_that_were_not_read_are_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    """Without a change of the registry: there may be none for days."""
    world = World(now=holding(1), latency_errors=[error])
    async with started(world, tmp_path):
        await until(lambda: world.latencies == {"a": 1.0})

    assert "latencies of experts were not read" in caplog.text


async def test_what_a_fault_ended_in_the_background_is_told_and_begins_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(now=holding(1), model_errors=[ValueError("a bug"), ValueError("a bug")])
    async with started(world, tmp_path):
        await until(lambda: world.before_models is not None)

    assert caplog.text.count("models: ended by a fault of the service") == 2
