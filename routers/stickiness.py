"""Which experts answered a session: bounded, forgotten after a while, in memory of this process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Generic, TypeVar

from domain.chat import Session
from domain.deadline import Clock
from domain.plan import CallRole
from domain.trace import Trace

_DECAY = 0.8
"""What an answer counts when the next one comes: after ten turns a tenth."""
_FORGOTTEN = 0.01
"""Counts below it are dropped, so that a long session keeps few."""

_BY_SKILLS = frozenset({"skills", "menu"})
"""Routers that know the option ``sticky``."""

T = TypeVar("T")


class _Sessions(Generic[T]):
    """Something for each session of each caller. Reading does not prolong a session, remembering does."""

    def __init__(self, *, max_sessions: int = 10_000, ttl_s: float = 1800.0, clock: Clock = time.monotonic) -> None:
        """*max_sessions* bounds memory (about 200 bytes each); *ttl_s* is how long a pause may be."""
        self._max_sessions = max_sessions
        self._ttl_s = ttl_s
        self._clock = clock
        self._sessions: OrderedDict[Session, tuple[T, float]] = OrderedDict()

    def recall(self, session: Session) -> T | None:
        """What is remembered; None when the session is not known or the pause was too long."""
        known = self._sessions.get(session)
        if known is None:
            return None
        value, at = known
        if self._clock() - at > self._ttl_s:
            del self._sessions[session]
            return None
        return value

    def remember(self, session: Session, value: T) -> None:
        self._sessions[session] = (value, self._clock())
        self._sessions.move_to_end(session)
        while len(self._sessions) > self._max_sessions:
            self._sessions.popitem(last=False)

    def __len__(self) -> int:
        return len(self._sessions)


class SessionMemory(_Sessions[str]):
    """Session to expert id, learned from traces (it is a sink of them): a request that was only routed, or failed, changes
    nothing."""

    def emit(self, trace: Trace) -> None:
        """Remember the best expert that answered, where the query was routed by its skills or its session."""
        decision = trace.decision
        if trace.session is None or trace.status != "ok" or decision is None or decision.router not in _BY_SKILLS or decision.fallback:
            return
        answered = _answered(trace)
        expert_id = next((expert_id for expert_id in decision.selected if expert_id in answered), None)
        if expert_id is not None:
            self.remember(trace.session, expert_id)


class SessionRoutes(_Sessions[Mapping[str, float]]):
    """Session to how much each expert has answered in it, older answers counting less; a sink of traces too.

    After EMO (T24), where one document draws from one pool of experts, and RMoE (T40), where routing depends on earlier routing.
    """

    def shares(self, session: Session) -> Mapping[str, float]:
        """Expert id to its share; they sum to 1, or there are none."""
        counts = self.recall(session) or {}
        total = sum(counts.values())
        return {expert_id: count / total for expert_id, count in counts.items()}

    def emit(self, trace: Trace) -> None:
        """Count the experts that answered a query that was routed to them; not those that were asked by name, and no fallback."""
        decision = trace.decision
        if trace.session is None or trace.status != "ok" or decision is None or decision.router == "explicit" or decision.fallback:
            return
        if answered := _answered(trace):
            counts = {expert_id: _DECAY * count for expert_id, count in (self.recall(trace.session) or {}).items()}
            for expert_id in answered:
                counts[expert_id] = counts.get(expert_id, 0.0) + 1 / len(answered)
            self.remember(trace.session, {expert_id: count for expert_id, count in counts.items() if count >= _FORGOTTEN})


def _answered(trace: Trace) -> set[str]:
    return {call.expert_id for call in trace.calls if call.role is CallRole.CANDIDATE and call.status == "ok"}
