"""Which expert a session was with last: bounded, forgotten after a while, in memory of this process."""

from __future__ import annotations

import time
from collections import OrderedDict

from domain.deadline import Clock


class SessionMemory:
    """Session id to expert id. Reading does not prolong a session, routing it again does."""

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

    def remember(self, session_id: str, expert_id: str) -> None:
        self._sessions[session_id] = (expert_id, self._clock())
        self._sessions.move_to_end(session_id)
        while len(self._sessions) > self._max_sessions:
            self._sessions.popitem(last=False)

    def __len__(self) -> int:
        return len(self._sessions)
