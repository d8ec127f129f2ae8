"""The one place that sees every concrete class: builds the parts, starts them in the background, closes them in reverse."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from api.auth import Auth, load_admin_key
from api.batch_host import BatchFleet
from api.batch_output import output_line
from api.batch_shapes import batch_shapes
from api.errors import wire_error_of
from api.first_content import seed_with_zoo
from api.metrics import Metrics, watch_servers
from api.readiness import Readiness
from api.services import Services
from api.settings import Settings, SettingsError
from api.startup import Startup
from domain.experts import HealthState
from experts_registry.batches import BatchStore
from experts_registry.database import Database
from experts_registry.directory import RegistryDirectory
from experts_registry.files import FileStore
from experts_registry.stores import Stores
from experts_registry.traces import TraceStore
from orchestrator.batch.engine import BatchEngine
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.line import Lines
from orchestrator.batch.parts import EngineParts
from orchestrator.batch.service import BatchService
from orchestrator.batch.unhurried import Unhurried
from orchestrator.batch.validation import InputLimits
from orchestrator.guard import GuardedWorkers
from orchestrator.limits import Limits
from orchestrator.pipeline import Orchestrator
from orchestrator.ports import TraceSink, Workers
from orchestrator.preparation import Preparation
from routers.annotators import Annotator, EmbeddingAnnotator
from routers.catalogue import RouterCatalogue
from routers.encoder import Encoder
from routers.explicit import ExplicitRouter
from routers.index_holder import IndexHolder
from routers.keyword_annotator import KeywordAnnotator
from routers.random_router import RandomRouter
from routers.skills_router import SkillsRouter
from routers.stickiness import SessionMemory
from workers.embedded.folder import require_folder
from workers.limits import EmbeddedLimits
from workers.managed.fleet import Fleet
from workers.managed.machine import SHARE_FOR_SERVERS, machine_memory_mb
from workers.managed.placement import HostMemory
from workers.managed.settings import FleetSettings
from workers.pool import WorkerPool
from workers.vllm.command import Installation, VllmProgram
from workers.vllm.limits import VllmLimits
from zoo import release

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 10.0
"""Longest time for one part to close: a hanging part must not keep the others from writing what they hold."""
SERVERS_CLOSE_TIMEOUT_S = 40.0
"""The same for the managed servers: vLLM ends itself in one to five seconds, and is killed when it takes longer than
``SERVER_STOP_GRACE_S``. Servers that are left after it end themselves."""
SERVER_STOP_GRACE_S = 10.0


@asynccontextmanager
async def bootstrap(settings: Settings, metrics: Metrics) -> AsyncIterator[Services]:
    """The process's parts. They load in the background (``services.readiness``) and are closed when the block ends."""
    services = await asyncio.to_thread(build, settings, metrics)  # imports and files: not on the event loop
    startup = Startup(services, seed=seed_of(services))
    async with AsyncExitStack() as stack:
        parts: tuple[tuple[str, Callable[[], Awaitable[None]], float], ...] = (
            ("database", services.database.close, CLOSE_TIMEOUT_S),
            ("directory", services.directory.close, CLOSE_TIMEOUT_S),
            ("traces", services.trace_store.close, CLOSE_TIMEOUT_S),
            ("encoder", services.encoder.close, CLOSE_TIMEOUT_S),
            ("managed servers", services.fleet.close, SERVERS_CLOSE_TIMEOUT_S),
            ("workers", services.workers.close, CLOSE_TIMEOUT_S),
            ("startup", startup.end, CLOSE_TIMEOUT_S),
        )
        for name, close, timeout_s in parts:
            stack.push_async_callback(_close, name, close, timeout_s)
        await services.workers.start()
        startup.begin()
        yield services


def build(settings: Settings, metrics: Metrics) -> Services:
    """Every part, connected, nothing started."""
    _make_data_dir(settings)
    database = database_of(settings)
    embedded_dir = settings.embedded_dir or release.WEIGHTS
    stores = Stores.of(database, check_card=partial(require_folder, embedded_dir=embedded_dir))
    trace_store = TraceStore(database)
    directory = RegistryDirectory(database, poll_interval_s=settings.registry_poll_s)
    encoder = Encoder.for_model(settings.encoder, cache_dir=settings.data_dir / "cache", num_threads=settings.encoder_threads)
    index_holder = IndexHolder(encoder)
    fleet = Fleet(_fleet_settings(settings, embedded_dir))
    workers = WorkerPool(embedded_dir=embedded_dir, embedded=EmbeddedLimits(num_threads=settings.embedded_threads), fleet=fleet)
    sessions = SessionMemory()
    routers = _routers(encoder, index_holder, GuardedWorkers(workers, directory), sessions)
    sinks: list[TraceSink] = [metrics, sessions, trace_store] if settings.traces else [metrics, sessions]
    metrics.watch(_ExpertGauges(directory, workers))
    watch_servers(metrics, fleet)
    metrics.count("consilium_traces_dropped", "Traces lost because the database was too slow.", lambda: trace_store.num_dropped)
    services = Services(
        settings=settings,
        auth=Auth(api_keys=settings.api_key_list, admin_key=load_admin_key(settings)),
        readiness=Readiness(),
        metrics=metrics,
        database=database,
        expert_store=stores.experts,
        strategy_store=stores.strategies,
        skill_store=stores.skills,
        question_store=stores.questions,
        profile_store=stores.profiles,
        trace_store=trace_store,
        file_store=FileStore(database, settings.data_dir / "files", keep_s=settings.file_days * 86_400),
        batch_store=BatchStore(database),
        directory=directory,
        encoder=encoder,
        index_holder=index_holder,
        routers=routers,
        workers=workers,
        fleet=fleet,
        orchestrator=Orchestrator(
            directory=directory, routers=routers, workers=workers, sinks=sinks, keep_text=settings.traces and settings.trace_content
        ),
    )
    services.batches = _Batches(services, sinks)
    return services


class _Batches:
    """``api.services.Batches``."""

    def __init__(self, services: Services, sinks: Sequence[TraceSink]) -> None:
        settings = services.settings
        self._services, self._sinks = services, sinks
        self._limits = BatchLimits(
            input=InputLimits(max_bytes=settings.max_file_bytes, max_line_bytes=settings.max_body_bytes),
            max_batches=settings.batches_at_once,
            lease_s=settings.batch_lease_s,
        )
        owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        engine = self.engine(owner, lease_s=self._limits.lease_s)
        self.service = BatchService(
            engine, services.batch_store, owner=owner, limits=self._limits, obstacle=lambda: services.fleet.view().trouble
        )

    def parts(self, *, traced: bool = True) -> EngineParts:
        services, settings = self._services, self._services.settings
        preparation = Preparation(directory=services.directory, routers=services.routers, limits=Limits())
        unhurried = Preparation(directory=Unhurried(services.directory), routers=services.routers, limits=Limits())
        return EngineParts(
            store=services.batch_store,
            files=services.file_store,
            fleet=BatchFleet(services.fleet),
            directory=services.directory,
            lines=Lines(
                preparation,
                unhurried,
                self._sinks if traced else (),
                keep_text=settings.traces and settings.trace_content,
                wait_s=self._limits.load_timeout_s,
            ),
            workers=GuardedWorkers(services.workers, services.directory),
            shapes=batch_shapes(services),
            wire_error=wire_error_of,
            output_line=output_line,
            limits=self._limits,
        )

    def engine(self, owner: str, *, lease_s: float) -> BatchEngine:
        parts = self.parts()
        return BatchEngine(replace(parts, limits=replace(parts.limits, lease_s=lease_s)), owner=owner)


def _fleet_settings(settings: Settings, embedded_dir: Path) -> FleetSettings:
    python = settings.vllm_python or release.FOLDER.parent / ".venv-vllm" / "bin" / "python"
    command = settings.vllm_command or shutil.which("vllm")
    return FleetSettings(
        folder=settings.data_dir.absolute() / "vllm",
        installation=Installation(
            cpu=VllmProgram.module(python.absolute()) if settings.vllm_python is not None or python.exists() else None,
            gpu=VllmProgram.serve(command) if command is not None else None,
        ),
        memory=HostMemory(
            settings.worker_memory_mb or SHARE_FOR_SERVERS * machine_memory_mb(), settings.gpu_memory_mb, settings.server_memory_mb
        ),
        embedded_dir=embedded_dir.absolute(),
        serves_embedded=settings.engine == "vllm",
        policy=settings.residency_policy,
        vllm_limits=VllmLimits(stop_grace_s=SERVER_STOP_GRACE_S),
    )


def _routers(encoder: Encoder, index_holder: IndexHolder, workers: Workers, sessions: SessionMemory) -> RouterCatalogue:
    """Every router that a strategy or a request can name. A new one is entered here."""
    by_embedding = EmbeddingAnnotator(encoder)
    annotators: dict[str, Annotator] = {"embedding": by_embedding, "llm": KeywordAnnotator(workers, encoder, by_embedding)}
    return RouterCatalogue([SkillsRouter(index_holder, annotators, sessions=sessions), ExplicitRouter(), RandomRouter()])


def database_of(settings: Settings) -> Database:
    """The database of the settings; nothing is connected before its first use."""
    return Database.connect(settings.database)


def _make_data_dir(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"CONSILIUM_DATA_DIR={settings.data_dir}: the folder cannot be made ({error.strerror})") from error


def seed_of(services: Services) -> Callable[[], Awaitable[None]]:
    """What fills an empty database, when the settings want that."""

    async def seed() -> None:
        if services.settings.seed_zoo:
            await seed_with_zoo(services.database)

    return seed


async def _close(name: str, close: Callable[[], Awaitable[None]], timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await close()
    except Exception as error:  # the other parts still have to be closed
        log.error("%s did not close", name, exc_info=error)


class _ExpertGauges:
    """What a scrape reads about experts (``api.metrics.ExpertGauges``)."""

    def __init__(self, directory: RegistryDirectory, workers: WorkerPool) -> None:
        self._directory, self._workers = directory, workers

    def expert_ids(self) -> Iterable[str]:
        return self._directory.snapshot().experts

    def health_of(self, expert_id: str) -> HealthState:
        return self._directory.health_of(expert_id)

    def in_flight(self, expert_id: str) -> int:
        return self._workers.in_flight(expert_id)

    def queued(self, expert_id: str) -> int:
        return self._workers.queued(expert_id)
