"""Everything that endpoints work with, made by ``bootstrap`` and kept in ``app.state.services``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from api.auth import Auth
from api.key_parts import KeyParts
from api.metrics import Metrics
from api.readiness import Readiness
from api.settings import Settings
from api.upload_room import UploadRoom

if TYPE_CHECKING:
    from api.memory_parts import MemoryParts
    from api.span_exporter import SpanExporter
    from experts_registry.batches import BatchStore
    from experts_registry.database import Database
    from experts_registry.directory import RegistryDirectory
    from experts_registry.experts import ExpertStore
    from experts_registry.feedback import FeedbackStore
    from experts_registry.files import FileStore
    from experts_registry.profiles import ProfileStore
    from experts_registry.questions import QuestionStore
    from experts_registry.skills import SkillStore
    from experts_registry.strategies import StrategyStore
    from experts_registry.traces import TraceStore
    from experts_registry.traffic import TrafficStore
    from orchestrator.batch.engine import BatchEngine
    from orchestrator.batch.parts import EngineParts
    from orchestrator.batch.service import BatchService
    from orchestrator.feedback.service import FeedbackService
    from orchestrator.pipeline import Orchestrator
    from routers.catalogue import RouterCatalogue
    from routers.encoder import Encoder
    from routers.index_holder import IndexHolder
    from routers.latencies import Latencies
    from routers.model_keeper import ModelKeeper
    from workers.managed.fleet import Fleet
    from workers.pool import WorkerPool


class Batches(Protocol):
    """What runs batches in this process."""

    service: BatchService
    """Takes up those that are made over HTTP."""

    def parts(self, *, traced: bool = True) -> EngineParts:
        """What an engine is made of; *traced*: whether lines leave traces."""
        ...

    def engine(self, owner: str, *, lease_s: float) -> BatchEngine:
        """For batches that *owner* claims for *lease_s*."""
        ...


@dataclass(slots=True)
class Services:
    """One process's parts. Complete from the start; whether a part answers yet is told by ``readiness``."""

    settings: Settings
    auth: Auth
    readiness: Readiness
    metrics: Metrics
    database: Database
    expert_store: ExpertStore
    strategy_store: StrategyStore
    skill_store: SkillStore
    question_store: QuestionStore
    profile_store: ProfileStore
    trace_store: TraceStore
    traffic: TrafficStore
    """What went through, added up."""
    feedback_store: FeedbackStore
    feedback: FeedbackService
    """What users say about answers, and what is learnt from it."""
    file_store: FileStore
    batch_store: BatchStore
    memory: MemoryParts
    """Solved problems, for strategies with the mode ``memory``."""
    keys: KeyParts
    directory: RegistryDirectory
    encoder: Encoder
    index_holder: IndexHolder
    models: ModelKeeper
    """Of the routers that are fitted on outcomes."""
    latencies: Latencies
    """How long experts take, for routers that weigh it."""
    routers: RouterCatalogue
    workers: WorkerPool
    fleet: Fleet
    """The managed servers; idle while no expert needs one."""
    orchestrator: Orchestrator
    spans: SpanExporter | None = None
    """On their way to a collector; None where spans are not exported."""
    upload_room: UploadRoom = field(default_factory=UploadRoom)
    batches: Batches = field(init=False)
    """Made from the others."""
