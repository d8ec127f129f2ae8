"""Which expert answered a session last: bounded, forgotten after a while, in memory of this process."""

from __future__ import annotations

import time
from collections import OrderedDict

from domain.deadline import Clock
from domain.plan import CallRole
from domain.trace import Trace


class SessionMemory:
    """Session id to expert id, learned from traces (it is a sink of them): a request that was only routed, or failed, changes
    nothing. Reading does not prolong a session, an answer does."""

    def __init__(self, *, max_sessions: int = 10_000, ttl_s: float = 1800.0, clock: Clock = time.monotonic) -> None:
        """*max_sessions* bounds memory (about 200 bytes each); *ttl_s* is how long a pause may be."""
        self._max_sessions = max_sessions
        self._ttl_s = ttl_s
        self._clock = clock
        self._sessions: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def recall(self, session_id: str) -> str | None:
        """The session's expert; None when it is not known or the pause was too long."""
        known = self._sessions.get(session_id)
        if known is None:
            return None
        expert_id, at = known
        if self._clock() - at > self._ttl_s:
            del self._sessions[session_id]
            return None
        return expert_id

    def emit(self, trace: Trace) -> None:
        """Remember the best expert that answered, where the query was routed by its skills or its session."""
        decision = trace.decision
        if trace.session_id is None or trace.status != "ok" or decision is None or decision.router != "skills" or decision.fallback:
            return
        answered = {call.expert_id for call in trace.calls if call.role is CallRole.CANDIDATE and call.status == "ok"}
        expert_id = next((expert_id for expert_id in decision.selected if expert_id in answered), None)
        if expert_id is not None:
            self.remember(trace.session_id, expert_id)

    def remember(self, session_id: str, expert_id: str) -> None:
        self._sessions[session_id] = (expert_id, self._clock())
        self._sessions.move_to_end(session_id)
        while len(self._sessions) > self._max_sessions:
            self._sessions.popitem(last=False)

    def __len__(self) -> int:
        return len(self._sessions)
