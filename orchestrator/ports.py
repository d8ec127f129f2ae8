"""What the pipeline needs from the outside. The others satisfy these structurally; nobody inherits from them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from domain.chat import Chunk, Session
from domain.experts import ExpertCard, HealthState
from domain.memory import Demonstration
from domain.plan import Candidate, ExpertCall, Outcome
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision, RoutingQuery
from domain.trace import Trace


class Directory(Protocol):
    """Experts and their health, in memory. No method waits or touches the database."""

    def snapshot(self) -> RegistrySnapshot:
        """The registry as it is now; one request uses one snapshot from start to end."""
        ...

    def health_of(self, expert_id: str) -> HealthState:
        """The expert's circuit. ``HALF_OPEN`` means that a trial call is due and allowed."""
        ...

    def begin_call(self, expert_id: str) -> int | None:
        """The number of a call that may begin now; None when none may. Of a half-open circuit this takes the one trial, until an
        outcome is recorded under that number."""
        ...

    def record(self, outcome: Outcome, *, call: int | None = None) -> None:
        """Learn from *outcome* of the call with that number: failures that are the expert's own fault open its circuit, an answer
        closes it."""
        ...


class Router(Protocol):
    """A routing policy."""

    @property
    def name(self) -> str: ...

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ``InvalidRequest`` for a strategy's options that this router does not know or take; asked when one is stored."""
        ...

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:
        """Score every expert of *query* and select.

        Selects only from ``query.experts``; never calls a candidate. What it calls itself stands in the decision's ``calls`` and
        leaves at least one of ``query.max_calls`` for a candidate. Raises ``NoEligibleExpert`` when the query is
        like nothing known and there is no fallback, ``NotReady`` while its index is not there.
        """
        ...


class Load(Protocol):
    """How busy experts are, in memory. No method waits."""

    def in_flight(self, expert_id: str) -> int:
        """Calls that run now."""
        ...

    def queued(self, expert_id: str) -> int:
        """Calls that wait for a place now."""
        ...

    def manages(self, card: ExpertCard) -> bool:
        """Whether the expert runs on a server of the service's own, which a call may have to load first."""
        ...


class SessionHistory(Protocol):
    """Who answered a session, in memory. No method waits."""

    def shares(self, session: Session) -> Mapping[str, float]:
        """Expert id to its share of the session's earlier answers, later ones counting more; empty when there are none."""
        ...


class Memory(Protocol):
    """Solved problems of each tenant, in memory."""

    async def recall(self, tenant: str, question: str, *, limit: int, min_similarity: float) -> Sequence[Demonstration]:
        """The *limit* problems of *tenant* that are most like *question*, best first; none whose cosine is below *min_similarity*.

        Raises ``ConsiliumError`` where that cannot be told now (the encoder is not there, or busy).
        """
        ...


class Workers(Protocol):
    """Runs completions. Raises only ``ExpertError`` (and ``CancelledError``); honours the call's deadline."""

    async def complete(self, call: ExpertCall) -> Candidate: ...

    def stream(self, call: ExpertCall) -> AsyncIterator[Chunk]:
        """Pieces of the answer as they are produced. Closing the iterator cancels the expert's work."""
        ...


class TraceSink(Protocol):
    """Receives every trace."""

    def emit(self, trace: Trace) -> None:
        """Take *trace*; never blocks, never raises."""
        ...
