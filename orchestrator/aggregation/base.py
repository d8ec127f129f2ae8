"""What an aggregator is given and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from domain.chat import ChatRequest, Message
from domain.experts import ExpertCard
from domain.plan import Candidate
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision
from domain.strategy import AggregatorName, Strategy


@dataclass(frozen=True, slots=True)
class AggregationContext:
    """Everything but the candidates; known before any expert has answered."""

    request: ChatRequest
    strategy: Strategy
    decision: RoutingDecision
    snapshot: RegistrySnapshot
    usable: Callable[[ExpertCard], bool]
    """Whether an expert may be called now (enabled, labels, healthy)."""
    why_fixed: str | None = None
    """Why the request's ``aggregator_expert`` is that one, where it was not the caller who asked for it."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The answer is one of the candidates."""

    candidate: Candidate
    why: str
    by: AggregatorName
    """The aggregator that chose."""


@dataclass(frozen=True, slots=True)
class Synthesis:
    """The answer is what *expert* writes when it is sent *messages*."""

    expert: ExpertCard
    messages: tuple[Message, ...]
    why: str


class Aggregator(Protocol):
    """A pure policy. Only asked when two or more candidates are left."""

    @property
    def name(self) -> AggregatorName: ...

    @property
    def calls_expert(self) -> bool:
        """Whether it has an expert write the answer, where one is usable: what ``aggregator_expert`` is for."""
        ...

    def expert_for(self, context: AggregationContext) -> ExpertCard | None:
        """The expert that this aggregator will call; None when it makes no call."""
        ...

    def decide(self, context: AggregationContext, candidates: Sequence[Candidate]) -> Chosen | Synthesis:
        """*candidates* are in the decision's order, best first."""
        ...
