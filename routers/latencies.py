"""How long experts take to answer: as they did lately, else as they did when they were measured."""

from __future__ import annotations

from collections.abc import Mapping

from domain.plan import CallRole
from domain.trace import Trace

_KEEP = 0.9
"""Of the mean, at each new answer: after ten answers a third of what was before is left."""


class Latencies:
    """Expert id to milliseconds. A trace sink; in memory of this process, one number for each expert."""

    def __init__(self) -> None:
        self._lately: dict[str, float] = {}
        self._measured: Mapping[str, float] = {}

    def measured(self, latencies_ms: Mapping[str, float]) -> None:
        """What profile runs found; counts for experts that have not answered since."""
        self._measured = dict(latencies_ms)

    def emit(self, trace: Trace) -> None:
        for call in trace.calls:
            if call.role is CallRole.CANDIDATE and call.status == "ok":
                before = self._lately.get(call.expert_id, call.latency_ms)
                self._lately[call.expert_id] = _KEEP * before + (1 - _KEEP) * call.latency_ms

    def of(self, expert_id: str) -> float | None:
        """None when it was never seen to answer."""
        return self._lately.get(expert_id, self._measured.get(expert_id))
