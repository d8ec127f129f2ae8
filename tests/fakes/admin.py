"""The service with a real registry on a SQLite file, around scripted experts: what the admin plane and the command line work on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from api.auth import Auth
from api.bootstrap import _Batches, key_parts, memory_parts
from api.metrics import Metrics
from api.readiness import Readiness
from api.services import Services
from api.settings import Settings
from domain.chat import Chunk
from domain.deadline import Deadline
from domain.errors import ExpertError
from domain.experts import Backend, ExpertCard, ExpertRole
from domain.plan import Candidate, ExpertCall
from domain.routing import PickRule
from domain.skills import LabelledQuestion
from domain.strategy import Strategy
from experts_registry.batches import BatchStore
from experts_registry.database import Database
from experts_registry.directory import RegistryDirectory
from experts_registry.feedback import FeedbackStore
from experts_registry.files import FileStore
from experts_registry.skills import Skill
from experts_registry.stores import Stores
from experts_registry.traces import TraceStore
from experts_registry.traffic import TrafficStore
from orchestrator.feedback.service import FeedbackService
from orchestrator.pipeline import Orchestrator
from routers.cascade_router import CascadeRouter
from routers.catalogue import RouterCatalogue
from tests.fakes.fleets import fleet_in
from tests.fakes.services import ADMIN_KEY, FakeEncoder, FixedRouter
from tests.fakes.workers import ScriptedWorkers
from workers.discovery import DiscoveredModel

QUESTIONS = tuple(
    LabelledQuestion(f"{skill}-{number}", f"{skill} {number}?", str(number), category="maths", skills=(skill,))
    for skill in ("algebra", "roman numerals")
    for number in range(4)
)
"""Four questions of each of two skills; the answer is the number in the question."""

CARDS = (
    ExpertCard("good", Backend.EMBEDDED, "good", skills=("algebra",)),
    ExpertCard("bad", Backend.EMBEDDED, "bad", roles=frozenset({ExpertRole.CANDIDATE, ExpertRole.AGGREGATOR})),
    ExpertCard("worse", Backend.EMBEDDED, "worse"),
)
STRATEGIES = (
    Strategy("auto", router="fixed", pick=PickRule("top_k", 1), aggregator="first"),
    Strategy("panel", router="fixed", pick=PickRule("top_k", 2), aggregator="fuse", aggregator_expert="bad"),
)


class ScriptedPool:
    """A ``WorkerPool`` whose experts follow a script; *served* is what ``discover`` finds, or the error that it raises."""

    def __init__(self, script: Mapping[str, Any]) -> None:
        self.scripted = ScriptedWorkers(script)
        self.served: Sequence[DiscoveredModel] | ExpertError = ()

    async def complete(self, call: ExpertCall) -> Candidate:
        return await self.scripted.complete(call)

    def stream(self, call: ExpertCall) -> AsyncIterator[Chunk]:
        return self.scripted.stream(call)

    async def check(self, card: ExpertCard) -> Candidate:
        return await self.complete(ExpertCall(card, ({"role": "user", "content": "Hello"},), {}, Deadline.after(5), f"check-{card.id}"))

    async def discover(self, base_url: str, api_key_ref: str | None = None) -> Sequence[DiscoveredModel]:
        if isinstance(self.served, ExpertError):
            raise self.served
        return self.served

    def in_flight(self, expert_id: str) -> int:
        return self.scripted.in_flight.get(expert_id, 0)

    def queued(self, expert_id: str) -> int:
        return 0


def knows_algebra(call: ExpertCall) -> str:
    """The right answer to every question of ``QUESTIONS`` about algebra."""
    skill, _, number = str(call.messages[-1]["content"]).rpartition(" ")
    return number.rstrip("?") if skill.endswith("algebra") else "no idea"


SCRIPT: Mapping[str, Any] = {"good": knows_algebra, "bad": "no idea", "worse": "none at all"}


@dataclass
class AdminParts:
    """What a test looks at and changes."""

    pool: ScriptedPool = field(default_factory=lambda: ScriptedPool(SCRIPT))
    services: Services | None = None
    managed: Sequence[ExpertCard] = ()
    """Experts that the fleet of stand-in servers is told."""

    @asynccontextmanager
    async def bootstrap(self, settings: Settings, metrics: Metrics) -> AsyncIterator[Services]:
        """For ``create_app(settings, bootstrap=...)``, on a data dir that ``registry_file`` was copied to."""
        database = Database.connect(settings.database)
        stores = Stores.of(database)
        directory = RegistryDirectory(database)
        traces = TraceStore(database, encoder_id=lambda: FakeEncoder.encoder_id)
        feedback = FeedbackStore(database)
        await directory.start()
        await traces.start()
        keys = key_parts(settings, database, directory)
        bases = [FixedRouter(name) for name in ("fixed", "explicit", "skills", "random")]
        routers = RouterCatalogue([*bases, CascadeRouter(RouterCatalogue(bases))])
        unused = cast(Any, None)
        fleet = fleet_in(settings.data_dir / "vllm")
        if self.managed:
            await fleet.update(self.managed)
        memory = memory_parts(settings, database, FakeEncoder())
        self.services = Services(
            settings=settings,
            auth=Auth(
                api_keys=settings.api_key_list,
                admin_key=ADMIN_KEY,
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
            trace_store=traces,
            traffic=TrafficStore(database),
            feedback_store=feedback,
            feedback=FeedbackService(feedback),
            file_store=FileStore(database, settings.data_dir / "files"),
            batch_store=BatchStore(database),
            memory=memory,
            keys=keys,
            directory=directory,
            encoder=cast(Any, FakeEncoder()),
            index_holder=unused,
            models=unused,
            latencies=unused,
            routers=routers,
            workers=cast(Any, self.pool),
            fleet=fleet,
            orchestrator=Orchestrator(
                directory=directory, routers=routers, workers=self.pool, sinks=[traces, keys.usage], memory=memory.live
            ),
        )
        self.services.batches = _Batches(self.services, [traces], learns=False)
        running = asyncio.create_task(self.services.batches.service.run())
        try:
            yield self.services
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await fleet.close()
            await keys.counters.close()
            await keys.usage.close()
            await traces.close()
            await directory.close()
            await database.close()


def registry_file(folder: Path) -> Path:
    """A SQLite file in *folder* with the content of this module: made once and copied, since migrating takes most of a test."""
    path = folder / "consilium.db"

    async def make() -> None:
        database = Database.connect(f"sqlite+aiosqlite:///{path}")
        await database.upgrade()
        await fill(Stores.of(database))
        await database.close()

    asyncio.run(make())
    return path


async def fill(stores: Stores) -> None:
    """Put the experts, strategies, skills and questions of this module into an empty registry."""
    await stores.questions.add(QUESTIONS, source="test")
    await stores.skills.create(Skill("cooking", "What nobody here can do"))
    for card in CARDS:
        await stores.experts.create(card)
    for strategy in STRATEGIES:
        await stores.strategies.create(strategy)
