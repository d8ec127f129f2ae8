"""The one place that sees every concrete class: builds the parts, starts them in the background, closes them in reverse."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from api.after_answer import AfterAnswer
from api.auth import Auth, load_admin_key
from api.batch_host import BatchFleet
from api.batch_output import output_line
from api.batch_rights import rights_of
from api.batch_shapes import batch_shapes
from api.errors import wire_error_of
from api.feedback_metrics import watch_feedback
from api.first_content import seed_with_zoo
from api.key_parts import KeyParts
from api.memory_parts import MemoryParts
from api.metrics import Metrics, watch_servers
from api.process_metrics import watch_process, watch_traces
from api.readiness import Readiness
from api.services import Services
from api.settings import Settings, SettingsError
from api.span_exporter import SpanExporter
from api.startup import Startup
from api.version import installed_version
from domain.experts import ExpertCard, HealthState, Price
from domain.feedback import FeedbackView
from experts_registry.audit import AuditLog
from experts_registry.batches import BatchStore
from experts_registry.database import Database
from experts_registry.directory import RegistryDirectory
from experts_registry.feedback import FeedbackStore
from experts_registry.files import FileStore
from experts_registry.health import HealthPolicy
from experts_registry.key_usage import UsageLedger
from experts_registry.keys import KeyStore
from experts_registry.memory import MemoryStore
from experts_registry.stores import Stores
from experts_registry.trace_privacy import content_key
from experts_registry.traces import TraceStore
from experts_registry.traffic import TrafficStore
from orchestrator.admission.gate import Gate
from orchestrator.admission.in_process import InProcessCounters
from orchestrator.admission.ports import Counters
from orchestrator.batch.engine import BatchEngine
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.line import Lines
from orchestrator.batch.parts import EngineParts
from orchestrator.batch.service import BatchService
from orchestrator.batch.unhurried import Unhurried
from orchestrator.batch.validation import InputLimits
from orchestrator.feedback.ports import OnlineLearner
from orchestrator.feedback.service import FeedbackService
from orchestrator.guard import GuardedWorkers
from orchestrator.limits import Limits
from orchestrator.pipeline import Orchestrator
from orchestrator.ports import TraceSink, Workers
from orchestrator.preparation import Preparation
from orchestrator.resolve import is_model_name
from routers.adjust import UNSCORED
from routers.annotators import Annotator, EmbeddingAnnotator
from routers.budget_router import BudgetRouter, ExpertCosts
from routers.cascade_router import CascadeRouter
from routers.catalogue import Router, RouterCatalogue
from routers.encoder import Encoder
from routers.explicit import ExplicitRouter
from routers.family import LearnedFamily, VectorStore
from routers.fixed import FixedRouter
from routers.index_holder import IndexHolder
from routers.instruction_router import InstructionRouter
from routers.keyword_annotator import KeywordAnnotator
from routers.latencies import Latencies
from routers.learned.base import Estimator
from routers.learned.catalogue import ESTIMATORS
from routers.learned.category import CategoryRouter
from routers.learned.category_report import card_options
from routers.learned.features import ViewsEncoder
from routers.learned_router import EstimatorFactory, LearnedRouter, OptionsFromCards
from routers.menu_annotator import MenuAnnotator
from routers.model_keeper import ModelKeeper, models_of_strategies
from routers.options import SkillsOptions
from routers.problem_memory import ProblemMemory
from routers.question_index import TextEncoder
from routers.random_router import RandomRouter
from routers.skills_router import SkillsRouter
from routers.stickiness import SessionMemory, SessionRoutes
from workers.addresses import AddressPolicy
from workers.embedded.folder import require_folder
from workers.limits import EmbeddedLimits, HttpLimits, PoolLimits
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
_ONE_PROCESS = (
    "managed servers need a service of one process, and this one has several: set CONSILIUM_WORKERS=1, or run vLLM yourself and enter "
    "it as an expert with the backend openai"
)


LEARNED: dict[str, Callable[[], Estimator]] = {name: partial(make, {}) for name, make in ESTIMATORS.items()}
"""The routers that learn from outcomes, by name, each with its defaults."""


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
            ("spans", partial(_close_spans, services.spans), CLOSE_TIMEOUT_S),
            ("key usage", services.keys.usage.close, CLOSE_TIMEOUT_S),
            ("limits", services.keys.counters.close, CLOSE_TIMEOUT_S),
            ("encoder", services.encoder.close, CLOSE_TIMEOUT_S),
            ("managed servers", services.fleet.close, SERVERS_CLOSE_TIMEOUT_S),
            ("workers", services.workers.close, CLOSE_TIMEOUT_S),
            ("startup", startup.end, CLOSE_TIMEOUT_S),
        )
        for name, close, timeout_s in parts:
            stack.push_async_callback(_close, name, close, timeout_s)
        await services.workers.start()
        if services.spans is not None:
            services.spans.start()
        startup.begin()
        yield services


def build(settings: Settings, metrics: Metrics) -> Services:
    """Every part, connected, nothing started."""
    make_data_dir(settings)
    database = database_of(settings)
    embedded_dir = settings.embedded_dir or release.WEIGHTS
    stores = Stores.of(database, check_card=partial(require_folder, embedded_dir=embedded_dir))
    directory = RegistryDirectory(database, poll_interval_s=settings.registry_poll_s, health=_health_policy(settings))
    encoder = Encoder.for_model(settings.encoder, cache_dir=settings.data_dir / "cache", num_threads=settings.encoder_threads)
    index_holder = IndexHolder(encoder)
    learns = settings.feedback and settings.traces
    admin_key = load_admin_key(settings)
    trace_store = TraceStore(
        database,
        encoder_id=(lambda: encoder.encoder_id) if learns else None,
        content_key=content_key(admin_key) if settings.content_kept == "hashed" else None,
    )
    feedback_store = FeedbackStore(database)
    fleet = Fleet(_fleet_settings(settings, embedded_dir))
    workers = WorkerPool(
        embedded_dir=embedded_dir,
        http=HttpLimits(connect_timeout_s=settings.connect_timeout_s),
        limits=PoolLimits(max_attempts=settings.expert_attempts),
        embedded=EmbeddedLimits(num_threads=settings.embedded_threads),
        fleet=fleet,
        addresses=AddressPolicy(settings.expert_network_list),
        on_wait=metrics.waited,
    )
    sessions, session_routes = SessionMemory(), SessionRoutes()
    feedback = FeedbackService(feedback_store, encoder_id=lambda: encoder.encoder_id if encoder.ready else None)
    learnt: Callable[[], FeedbackView] = (lambda: feedback.view) if learns else FeedbackView
    latencies = Latencies()
    views = ViewsEncoder(encoder)
    models = ModelKeeper(views, _Outcomes(stores), directory.snapshot, describe=views.describe)
    parts = _RouterParts(encoder, index_holder, models, GuardedWorkers(workers, directory), sessions, learnt, _Costs(latencies, fleet))
    routers = _routers(parts)
    feedback.teach([router for router in routers.values() if isinstance(router, OnlineLearner)])
    memory = memory_parts(settings, database, encoder)
    keys = key_parts(settings, database, directory)
    spans = _span_exporter(settings, directory)
    # What the next request goes by is told before the answer; what people look at is told when it is on its way.
    followed: list[TraceSink] = [sessions, session_routes, latencies, keys.usage]
    looked_at: list[TraceSink] = [metrics, *([trace_store] if settings.traces else []), *([spans] if spans is not None else [])]
    metrics.watch(_ExpertGauges(directory, workers))
    watch_servers(metrics, fleet)
    watch_feedback(metrics, feedback)
    watch_traces(metrics, trace_store, spans)
    services = Services(
        settings=settings,
        auth=Auth(
            api_keys=settings.api_key_list,
            admin_key=admin_key,
            stored=lambda: directory.snapshot().keys,
            is_open=settings.is_loopback,
        ),
        readiness=Readiness(),
        metrics=metrics,
        database=database,
        expert_store=stores.experts,
        strategy_store=stores.strategies,
        skill_store=stores.skills,
        question_store=stores.questions,
        profile_store=stores.profiles,
        trace_store=trace_store,
        traffic=TrafficStore(database),
        feedback_store=feedback_store,
        feedback=feedback,
        file_store=FileStore(database, settings.data_dir / "files", keep_s=settings.file_days * 86_400),
        batch_store=BatchStore(database),
        memory=memory,
        keys=keys,
        directory=directory,
        encoder=encoder,
        index_holder=index_holder,
        models=models,
        latencies=latencies,
        routers=routers,
        workers=workers,
        fleet=fleet,
        spans=spans,
        orchestrator=Orchestrator(
            directory=directory,
            routers=routers,
            workers=workers,
            sinks=[*followed, AfterAnswer(looked_at)],
            keep_text=settings.traces and settings.content_kept != "off",
            load=workers,
            history=session_routes,
            memory=memory.live if settings.memory else None,
        ),
    )
    services.batches = _Batches(services, [*followed, *looked_at], learns=learns)
    watch_process(metrics, services.readiness, services.batches.service, version=installed_version())
    return services


class _Outcomes:
    """``routers.training_data.OutcomeSource``."""

    def __init__(self, stores: Stores) -> None:
        self.outcome_table, self.outcomes_version = stores.profiles.outcome_table, stores.profiles.outcomes_version
        self.vectors, self._questions = stores.questions.vectors, stores.questions

    async def save_vectors(self, encoder_id: str, vectors: Mapping[str, bytes], *, questions_version: int) -> None:
        await self._questions.save_vectors(encoder_id, vectors, questions_version=questions_version)


class _Batches:
    """``api.services.Batches``."""

    def __init__(self, services: Services, sinks: Sequence[TraceSink], *, learns: bool) -> None:
        """*learns*: whether what was routed is kept for feedback."""
        settings = services.settings
        self._services, self._sinks = services, sinks
        self._learns = learns
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
        # Without load and history: a file's lines are routed at once and planned, whatever is busy meanwhile.
        memory = services.memory.live if settings.memory else None
        preparation = Preparation(directory=services.directory, routers=services.routers, limits=Limits(), memory=memory)
        unhurried = Preparation(directory=Unhurried(services.directory), routers=services.routers, limits=Limits(), memory=memory)
        return EngineParts(
            store=services.batch_store,
            files=services.file_store,
            fleet=BatchFleet(services.fleet),
            directory=services.directory,
            lines=Lines(
                preparation,
                unhurried,
                self._sinks if traced else (),
                keep_text=settings.traces and settings.content_kept != "off",
                wait_s=self._limits.load_timeout_s,
                encoder_id=(lambda: services.encoder.encoder_id if services.encoder.ready else None) if self._learns and traced else None,
            ),
            workers=GuardedWorkers(services.workers, services.directory),
            shapes=batch_shapes(services, traced=traced),
            wire_error=wire_error_of,
            output_line=output_line,
            limits=self._limits,
            on_lines=services.metrics.lines_ended,
            rights_of=rights_of(services.keys, services.directory.snapshot, embedding_model=settings.encoder),
        )

    def engine(self, owner: str, *, lease_s: float) -> BatchEngine:
        parts = self.parts()
        return BatchEngine(replace(parts, limits=replace(parts.limits, lease_s=lease_s)), owner=owner)


async def stored_keys_exist(settings: Settings) -> bool:
    """Whether any key was ever created. Raises ``StorageError`` when nobody can tell, ``NotReady`` when there is no database yet."""
    make_data_dir(settings)
    database = database_of(settings)
    try:
        return await KeyStore(database).exist()
    finally:
        await database.close()


def key_parts(settings: Settings, database: Database, directory: RegistryDirectory) -> KeyParts:
    """Keys, their limits and their use; counted by Redis where one is set, else in this process."""

    def card_of(expert_id: str) -> ExpertCard | None:
        return directory.snapshot().experts.get(expert_id)

    usage = UsageLedger(database, card_of)
    counters: Counters
    if settings.redis_url is not None:
        from experts_registry.redis_limits import RedisCounters  # heavy, and needed by those who have a Redis only

        counters = RedisCounters(settings.redis_url.get_secret_value(), usage.load)
    else:
        counters = InProcessCounters(usage)
    return KeyParts(KeyStore(database), usage, AuditLog(database), counters, Gate(counters, usage))


def memory_parts(settings: Settings, database: Database, encoder: TextEncoder) -> MemoryParts:
    """The memory of solved problems; what feedback lets in has to be in the traces, word for word."""
    store = MemoryStore(database, max_problems=settings.memory_problems)
    learns = settings.memory and settings.traces and settings.feedback and settings.content_kept == "full"
    return MemoryParts(store, ProblemMemory(store, encoder), learns)


def _span_exporter(settings: Settings, directory: RegistryDirectory) -> SpanExporter | None:
    if settings.otlp_endpoint is None:
        return None
    from api.otlp import OtlpCollector  # needed by those who have a collector only

    collector = OtlpCollector(
        settings.otlp_endpoint, headers=settings.otlp_header_map, timeout_s=settings.otlp_timeout_s, version=installed_version()
    )

    def card_of(expert_id: str) -> ExpertCard | None:
        return directory.snapshot().experts.get(expert_id)

    return SpanExporter(collector, card_of)


async def _close_spans(spans: SpanExporter | None) -> None:
    if spans is not None:
        await spans.close()


def _health_policy(settings: Settings) -> HealthPolicy:
    cool_down_s = settings.circuit_cool_down_s
    longest_s = max(cool_down_s, HealthPolicy().max_cool_down_s)
    return HealthPolicy(max_faults=settings.circuit_faults, cool_down_s=cool_down_s, max_cool_down_s=longest_s)


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
        refusal=_ONE_PROCESS if settings.workers > 1 else None,
    )


LEARNED_ROUTERS: Mapping[str, EstimatorFactory] = {name: make for name, make in ESTIMATORS.items() if name not in UNSCORED}
"""Routers that are fitted on measured outcomes, by name: the catalogue's, without the baselines that need no fitting here."""
OPTIONS_FROM_CARDS: Mapping[str, OptionsFromCards] = {CategoryRouter.name: card_options}
"""Of routers with options that the registry's cards answer."""


@dataclass(frozen=True, slots=True)
class _RouterParts:
    """What routers are made of."""

    encoder: Encoder
    index_holder: IndexHolder
    models: ModelKeeper
    workers: Workers
    sessions: SessionMemory
    feedback: Callable[[], FeedbackView]
    costs: ExpertCosts


def _routers(parts: _RouterParts) -> RouterCatalogue:
    """Every router that a strategy or a request can name. A new one is entered here."""
    encoder, holder, models, workers = parts.encoder, parts.index_holder, parts.models, parts.workers
    views, by_embedding = ViewsEncoder(encoder), EmbeddingAnnotator(encoder)
    annotators: dict[str, Annotator] = {
        "embedding": by_embedding,
        "llm": KeywordAnnotator(workers, encoder, by_embedding),
        "menu": MenuAnnotator(workers, encoder, by_embedding),
    }
    fitted: list[LearnedRouter | InstructionRouter] = [
        LearnedRouter(
            name,
            factory,
            models,
            index_holder=holder,
            annotator=by_embedding,
            encoder=views,
            describe=views.describe,
            from_cards=OPTIONS_FROM_CARDS.get(name, lambda _: {}),
        )
        for name, factory in LEARNED_ROUTERS.items()
    ]
    fitted.append(InstructionRouter(workers, models, index_holder=holder, annotator=by_embedding, encoder=encoder))
    models.serve(partial(models_of_strategies, {router.name: router.model_for for router in fitted}))
    menu = SkillsOptions(annotator="menu")
    routers: list[Router] = [
        SkillsRouter(holder, annotators, sessions=parts.sessions, feedback=parts.feedback),
        SkillsRouter(holder, annotators, name="menu", defaults=menu, sessions=parts.sessions, feedback=parts.feedback),
        ExplicitRouter(),
        FixedRouter(),
        RandomRouter(),
        *fitted,
    ]
    routers.append(BudgetRouter(RouterCatalogue(routers), parts.costs))
    return RouterCatalogue([*routers, CascadeRouter(RouterCatalogue(routers))])


class _Costs:
    """``routers.budget_router.ExpertCosts``."""

    def __init__(self, latencies: Latencies, fleet: Fleet) -> None:
        self.latency_ms, self.to_load = latencies.of, fleet.to_load


def learned_family(settings: Settings, store: VectorStore | None) -> LearnedFamily:
    """The routers that can be fitted on a table of outcomes, for ``consilium eval routing``; nothing is loaded before it is needed."""
    make_data_dir(settings)
    encoder = Encoder.for_model(settings.encoder, cache_dir=settings.data_dir / "cache", num_threads=settings.encoder_threads)
    return LearnedFamily(LEARNED, encoder, store)


def database_of(settings: Settings) -> Database:
    """The database of the settings; nothing is connected before its first use."""
    return Database.connect(settings.database)


def make_data_dir(settings: Settings) -> None:
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

    def has_model(self, name: str) -> bool:
        return is_model_name(name, self._directory.snapshot())

    def price_of(self, expert_id: str) -> Price | None:
        card = self._directory.snapshot().experts.get(expert_id)
        return None if card is None else card.price
