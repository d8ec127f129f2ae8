"""The one place that sees every concrete class: builds the parts, starts them in the background, closes them in reverse."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from api.auth import Auth, load_admin_key
from api.first_content import seed_with_zoo
from api.metrics import Metrics
from api.readiness import Readiness
from api.services import Services
from api.settings import Settings, SettingsError
from api.startup import Startup
from domain.experts import HealthState
from experts_registry.database import Database
from experts_registry.directory import RegistryDirectory
from experts_registry.stores import Stores
from experts_registry.traces import TraceStore
from orchestrator.guard import GuardedWorkers
from orchestrator.pipeline import Orchestrator
from orchestrator.ports import TraceSink, Workers
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
from workers.pool import WorkerPool
from zoo import release

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 10.0
"""Longest time for one part to close: a hanging part must not keep the others from writing what they hold."""


@asynccontextmanager
async def bootstrap(settings: Settings, metrics: Metrics) -> AsyncIterator[Services]:
    """The process's parts. They load in the background (``services.readiness``) and are closed when the block ends."""
    services = await asyncio.to_thread(build, settings, metrics)  # imports and files: not on the event loop
    startup = Startup(services, seed=_seed_of(services))
    async with AsyncExitStack() as stack:
        parts: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
            ("database", services.database.close),
            ("directory", services.directory.close),
            ("traces", services.trace_store.close),
            ("encoder", services.encoder.close),
            ("workers", services.workers.close),
            ("startup", startup.end),
        )
        for name, close in parts:
            stack.push_async_callback(_close, name, close)
        await services.workers.start()
        startup.begin()
        yield services


def build(settings: Settings, metrics: Metrics) -> Services:
    """Every part, connected, nothing started."""
    _make_data_dir(settings)
    database = Database.connect(settings.database)
    embedded_dir = settings.embedded_dir or release.WEIGHTS
    stores = Stores.of(database, check_card=partial(require_folder, embedded_dir=embedded_dir))
    trace_store = TraceStore(database)
    directory = RegistryDirectory(database, poll_interval_s=settings.registry_poll_s)
    encoder = Encoder.for_model(settings.encoder, cache_dir=settings.data_dir / "cache", num_threads=settings.encoder_threads)
    index_holder = IndexHolder(encoder)
    workers = WorkerPool(embedded_dir=embedded_dir, embedded=EmbeddedLimits(num_threads=settings.embedded_threads))
    sessions = SessionMemory()
    routers = _routers(encoder, index_holder, GuardedWorkers(workers, directory), sessions)
    sinks: list[TraceSink] = [metrics, sessions, trace_store] if settings.traces else [metrics, sessions]
    metrics.watch(_ExpertGauges(directory, workers))
    metrics.count("consilium_traces_dropped", "Traces lost because the database was too slow.", lambda: trace_store.num_dropped)
    return Services(
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
        directory=directory,
        encoder=encoder,
        index_holder=index_holder,
        routers=routers,
        workers=workers,
        orchestrator=Orchestrator(
            directory=directory, routers=routers, workers=workers, sinks=sinks, keep_text=settings.traces and settings.trace_content
        ),
    )


def _routers(encoder: Encoder, index_holder: IndexHolder, workers: Workers, sessions: SessionMemory) -> RouterCatalogue:
    """Every router that a strategy or a request can name. A new one is entered here."""
    by_embedding = EmbeddingAnnotator(encoder)
    annotators: dict[str, Annotator] = {"embedding": by_embedding, "llm": KeywordAnnotator(workers, encoder, by_embedding)}
    return RouterCatalogue([SkillsRouter(index_holder, annotators, sessions=sessions), ExplicitRouter(), RandomRouter()])


def _make_data_dir(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"CONSILIUM_DATA_DIR={settings.data_dir}: the folder cannot be made ({error.strerror})") from error


def _seed_of(services: Services) -> Callable[[], Awaitable[None]]:
    async def seed() -> None:
        if services.settings.seed_zoo:
            await seed_with_zoo(Stores.of(services.database))

    return seed


async def _close(name: str, close: Callable[[], Awaitable[None]]) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
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
