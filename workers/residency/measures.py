"""What is learned about servers: how often each is used, and how long it takes to load, to fall asleep and to wake."""

from __future__ import annotations

import math

from workers.residency.servers import ServerSpec

HALF_LIFE_USES = 64
"""Uses, of all servers together, after which a use counts half: a change of traffic shows within about a hundred requests."""
NEWEST_WEIGHT = 0.3
"""Of the newest measurement in a moving estimate: a disk cache that warmed up shows after a few loads, one slow load does not."""


class UsageShares:
    """Which share of the recent uses each server had: an estimate of the probability that it is needed next."""

    def __init__(self) -> None:
        self._weights: dict[str, tuple[float, int]] = {}
        """Server id to its weight and the use at which that was true."""
        self._num_uses = 0

    def record(self, server_id: str) -> None:
        """*server_id* is used now."""
        self._num_uses += 1
        self._weights[server_id] = (self._weight(server_id) + 1.0, self._num_uses)

    def share(self, server_id: str) -> float:
        """In [0, 1]; the shares of all servers add up to 1 from the first use on."""
        if not self._num_uses:
            return 0.0
        total = (1 - _faded(self._num_uses)) / (1 - _faded(1))
        return min(1.0, self._weight(server_id) / total)

    def forget(self, server_id: str) -> None:
        """*server_id* will not come back. Its past uses still count among all uses, until they have faded."""
        self._weights.pop(server_id, None)

    def _weight(self, server_id: str) -> float:
        weight, at = self._weights.get(server_id, (0.0, 0))
        return weight * _faded(self._num_uses - at)


def _faded(num_uses: int) -> float:
    """What is left of a weight of 1 after *num_uses* further uses."""
    return math.exp2(-num_uses / HALF_LIFE_USES)


class MovingEstimate:
    """Seconds that something takes: what was assumed until it is measured, then a moving average."""

    def __init__(self, assumed_s: float) -> None:
        self.seconds = assumed_s
        self.num_measured = 0

    def add(self, seconds: float) -> None:
        """It took *seconds* this time. The first measurement replaces what was assumed."""
        weight = NEWEST_WEIGHT if self.num_measured else 1.0
        self.seconds += weight * (seconds - self.seconds)
        self.num_measured += 1


class Times:
    """How long one server takes."""

    def __init__(self, spec: ServerSpec) -> None:
        self.load = MovingEstimate(spec.load_s)
        self.sleep = MovingEstimate(spec.sleep_s)
        self.wake = MovingEstimate(spec.wake_s)

    def assume(self, spec: ServerSpec) -> None:
        """Take over what *spec* declares where nothing is measured yet."""
        for estimate, assumed_s in ((self.load, spec.load_s), (self.sleep, spec.sleep_s), (self.wake, spec.wake_s)):
            if not estimate.num_measured:
                estimate.seconds = assumed_s
