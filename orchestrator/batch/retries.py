"""Which batches rest after they broke off, and when one is given up. Pure."""

from __future__ import annotations

from orchestrator.batch.limits import BatchLimits


class Retries:
    """Mutable. Of one process; knows no time: *now* is given (seconds, of any clock)."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._rests: dict[str, tuple[float, float]] = {}
        """Until when, and how long the next one is."""
        self._num_breaks: dict[str, int] = {}

    def broke_off(self, batch_id: str, now: float, *, by_a_bug: bool) -> bool:
        """It rests. Whether it has broken by bugs so often that it is to be given up."""
        _, pause_s = self._rests.get(batch_id, (now, self._limits.first_rest_s))
        self._rests[batch_id] = (now + pause_s, min(2 * pause_s, self._limits.max_rest_s))
        self._num_breaks[batch_id] = self._num_breaks.get(batch_id, 0) + by_a_bug
        return self._num_breaks[batch_id] >= self._limits.max_breaks

    def forget(self, batch_id: str) -> None:
        """It is over, or another process's."""
        self._rests.pop(batch_id, None)
        self._num_breaks.pop(batch_id, None)

    def resting(self, now: float) -> frozenset[str]:
        """What is not to be taken up yet."""
        return frozenset(batch_id for batch_id, (until, _) in self._rests.items() if until > now)
