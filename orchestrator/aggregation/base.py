"""What an aggregator is given and what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from domain.chat import ChatRequest, Message
from domain.deadline import Deadline
from domain.experts import ExpertCard
from domain.made_often import made_often
from domain.memory import NOTHING_RECALLED, Recollection
from domain.plan import Candidate, ExpertCall, Outcome
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision
from domain.strategy import AggregatorName, Strategy
from orchestrator.options import Options

NO_DEADLINE = Deadline(math.inf)


@made_often
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
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the mode and the aggregator: the strategy's with the request's over them."""
    deadline: Deadline = NO_DEADLINE
    again: Callable[[], bool] | None = None
    """Of every call (``ExpertCall.again``)."""
    recalled: Recollection = NOTHING_RECALLED
    """What the memory has of problems like this one, for modes that are shown it."""
    weak_answer: str | None = None
    """What an expert says that is known to be weak at this query."""
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What was found out for this request once and follows from the rest."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The answer is one of the candidates."""

    candidate: Candidate
    why: str
    by: AggregatorName
    """The aggregator that chose."""


@dataclass(frozen=True, slots=True)
class Deliberation:
    """Calls that run at once, and who is chosen when they have ended; *conclude* is given one outcome for each."""

    calls: tuple[ExpertCall, ...]
    conclude: Callable[[Sequence[Outcome]], Chosen]
    by: str
    """As the trace has it: ``judge:<expert>``."""
    why: str


@dataclass(frozen=True, slots=True)
class Synthesis:
    """The answer is what *expert* writes when it is sent *messages*."""

    expert: ExpertCard
    messages: tuple[Message, ...]
    why: str


Verdict = Chosen | Synthesis | Deliberation


class Aggregator(Protocol):
    """A pure policy. Only asked when two or more candidates are left."""

    @property
    def name(self) -> AggregatorName: ...

    @property
    def calls_expert(self) -> bool:
        """Whether it has an expert read the candidates, where one is usable: what ``aggregator_expert`` is for."""
        ...

    @property
    def writes(self) -> bool:
        """Whether that expert's words are the answer, in one call that reads all candidates."""
        ...

    @property
    def options(self) -> Options:
        """What a strategy's ``mode_options`` may tell it."""
        ...

    def expert_for(self, context: AggregationContext) -> ExpertCard | None:
        """The expert that this aggregator will call; None when it makes no call."""
        ...

    def without_expert(self, context: AggregationContext) -> str:
        """The name of the aggregator that takes its place where it has no expert to call."""
        ...

    def num_calls(self, context: AggregationContext, num_candidates: int) -> int:
        """Calls that so many candidates lead to."""
        ...

    def decide(self, context: AggregationContext, candidates: Sequence[Candidate]) -> Verdict:
        """*candidates* are in the decision's order, best first."""
        ...


class CallsNobody:
    """What is the same for all that call nobody."""

    name: AggregatorName
    calls_expert = False
    writes = False
    options: Options = MappingProxyType({})

    def expert_for(self, context: AggregationContext) -> ExpertCard | None:  # noqa: ARG002 - the port's signature
        return None

    def without_expert(self, context: AggregationContext) -> str:  # noqa: ARG002
        return self.name

    def num_calls(self, context: AggregationContext, num_candidates: int) -> int:  # noqa: ARG002
        return 0
