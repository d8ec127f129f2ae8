"""Every bound of the residency: its name, its unit and why it is there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResidencyLimits:
    """Bounds of one host."""

    max_waiting: int = 1024
    """Requests that may wait for servers, over all of them. Each costs a few hundred bytes; beyond it waiting is hopeless."""
    load_timeout_s: float = 900.0
    """Longest load: a model of 70 B parameters from a slow disk, compiled at its first start."""
    change_timeout_s: float = 120.0
    """Longest fall asleep, wake or stop: all move or free memory, none reads a disk."""
    nearly_done: float = 0.5
    """Share of the expected load time from which a load that nobody waits for any more is not given up for another: what is
    left costs less than what was spent."""
    stuck_retry_s: float = 30.0
    """Pause before a server that could not be stopped is tried again."""
