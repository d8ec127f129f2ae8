"""The service around scripted experts: a directory in memory, a router that does as it is told, no models and no database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from api.auth import Auth
from api.key_parts import KeyParts
from api.metrics import Metrics
from api.readiness import Readiness
from api.services import Services
from api.settings import Settings
from api.upload_room import UploadRoom
from domain.errors import ConsiliumError
from domain.experts import Backend, Capability, ExpertCard, ExpertRole, HealthState
from domain.plan import Outcome
from domain.registry import RegistrySnapshot
from domain.routing import PickRule, RoutingDecision, RoutingQuery, ScoredExpert
from domain.skills import SkillMatch
from domain.strategy import Strategy
from domain.trace import Trace
from orchestrator.admission.gate import Gate
from orchestrator.admission.in_process import InProcessCounters
from orchestrator.limits import Limits
from orchestrator.pipeline import Orchestrator
from routers.catalogue import RouterCatalogue
from tests.fakes.limits import MemoryAudit, MemoryLedger
from tests.fakes.workers import ScriptedWorkers

ADMIN_KEY = "the-admin-key-of-the-tests"


def card(expert_id: str, **changes: Any) -> ExpertCard:
    """An expert with every capability."""
    return replace(
        ExpertCard(expert_id, Backend.OPENAI, expert_id, base_url="http://127.0.0.1:9/v1", capabilities=frozenset(Capability)), **changes
    )


def registry(*cards: ExpertCard) -> RegistrySnapshot:
    """A registry with *cards* and the strategies ``auto`` (one expert) and ``panel`` (all of them, the first answer)."""
    strategies = (
        Strategy("auto", router="fixed", pick=PickRule("top_k", 1)),
        Strategy("panel", router="fixed", pick=PickRule("top_k", 8), aggregator="first"),
        Strategy("council", router="fixed", pick=PickRule("top_k", 8), aggregator="fuse", aggregator_expert="judge"),
    )
    return RegistrySnapshot(1, 1, {c.id: c for c in cards}, {s.id: s for s in strategies}, {"algebra": ""})


class FakeDirectory:
    """A registry in memory. ``health`` is set by the test, never learned."""

    def __init__(self, now: RegistrySnapshot) -> None:
        self.now = now
        self.health: dict[str, HealthState] = {}
        self.recorded: list[Outcome] = []

    def snapshot(self) -> RegistrySnapshot:
        return self.now

    async def look_again(self) -> None:
        """Nobody else changes anything."""

    def health_of(self, expert_id: str) -> HealthState:
        return self.health.get(expert_id, HealthState.CLOSED)

    def begin_call(self, expert_id: str) -> int | None:
        return None if self.health_of(expert_id) is HealthState.OPEN else 1

    def record(self, outcome: Outcome, *, call: int | None = None) -> None:
        self.recorded.append(outcome)


@dataclass(frozen=True, slots=True)
class FixedRouter:
    """Takes the eligible experts in the registry's order, under whatever name; the skill is always ``algebra``."""

    name: str = "fixed"

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Takes any."""

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:
        experts = [e for e in query.experts if ExpertRole.CANDIDATE in e.roles]
        selected = tuple(e.id for e in experts[: query.pick.k])
        considered = tuple(ScoredExpert(e.id, 1.0 / (i + 1), e.id in selected, "in order") for i, e in enumerate(experts))
        return RoutingDecision(self.name, selected, considered, "in the registry's order", (SkillMatch("algebra", 0.9, 1.0),), "maths")


class FakeEncoder:
    """Three dimensions: length, vowels, one."""

    encoder_id = "fake-encoder@1"
    ready = True
    dimensions = 3
    early_dimensions = 0

    async def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.array([[len(t), sum(c in "aeiou" for c in t), 1] for t in texts], dtype=np.float32).reshape(-1, 3)
        return cast(np.ndarray, rows / np.linalg.norm(rows, axis=1, keepdims=True))

    async def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) for text in texts)


@dataclass
class FakeDatabase:
    """Fails its check with *error* when the test sets one."""

    error: ConsiliumError | None = None

    async def check(self) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class KeptTraces:
    """A trace sink that keeps everything."""

    traces: list[Trace] = field(default_factory=list)

    def emit(self, trace: Trace) -> None:
        self.traces.append(trace)


def memory_keys() -> KeyParts:
    """Limits in memory, without stored keys and without a database."""
    ledger = MemoryLedger()
    counters = InProcessCounters(ledger)
    unused = cast(Any, None)
    return KeyParts(unused, cast(Any, ledger), cast(Any, MemoryAudit()), counters, Gate(counters, ledger))


@dataclass
class Parts:
    """What a test looks at and changes."""

    workers: ScriptedWorkers
    directory: FakeDirectory
    traces: KeptTraces = field(default_factory=KeptTraces)
    database: FakeDatabase = field(default_factory=FakeDatabase)
    readiness: Readiness = field(default_factory=Readiness)
    limits: Limits = field(default_factory=Limits)
    file_store: Any = None
    batch_store: Any = None
    upload_room: UploadRoom = field(default_factory=UploadRoom)
    keys: KeyParts = field(default_factory=memory_keys)
    num_wakes: int = 0
    """How often whoever runs batches was told to look."""

    def bootstrap(self) -> Callable[[Settings, Metrics], AbstractAsyncContextManager[Services]]:
        """For ``create_app(settings, bootstrap=...)``."""

        @asynccontextmanager
        async def make(settings: Settings, metrics: Metrics) -> AsyncIterator[Services]:
            routers = RouterCatalogue([FixedRouter(), FixedRouter("explicit")])
            orchestrator = Orchestrator(
                directory=self.directory, routers=routers, workers=self.workers, sinks=[self.traces, metrics], limits=self.limits
            )
            unused = cast(Any, None)
            services = Services(
                settings=settings,
                auth=Auth(
                    api_keys=settings.api_key_list,
                    admin_key=ADMIN_KEY,
                    stored=lambda: self.directory.snapshot().keys,
                    is_open=settings.is_loopback,
                ),
                readiness=self.readiness,
                metrics=metrics,
                database=cast(Any, self.database),
                expert_store=unused,
                strategy_store=unused,
                skill_store=unused,
                question_store=unused,
                profile_store=unused,
                trace_store=unused,
                traffic=unused,
                feedback_store=unused,
                feedback=unused,
                file_store=self.file_store,
                batch_store=self.batch_store,
                memory=unused,
                keys=self.keys,
                upload_room=self.upload_room,
                directory=cast(Any, self.directory),
                encoder=cast(Any, FakeEncoder()),
                index_holder=unused,
                models=unused,
                latencies=unused,
                routers=routers,
                workers=cast(Any, self.workers),
                fleet=unused,
                orchestrator=orchestrator,
            )
            services.batches = cast(Any, SimpleNamespace(service=SimpleNamespace(wake=self._wake)))
            yield services

        return make

    def _wake(self) -> None:
        self.num_wakes += 1


def parts(script: Mapping[str, Any], *cards: ExpertCard, limits: Limits | None = None) -> Parts:
    """The service's parts with one expert per name of *script*, or with *cards*."""
    chosen = cards or tuple(card(expert_id) for expert_id in script)
    return Parts(ScriptedWorkers(script), FakeDirectory(registry(*chosen)), limits=limits or Limits())
