"""What the servers of one supervisor have in common."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from domain.deadline import Clock
from workers.vllm.command import Installation
from workers.vllm.control import ServerControl
from workers.vllm.process import Premises
from workers.vllm.restart import RestartPolicy
from workers.vllm.status import ServerStatus


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How servers are kept running."""

    premises: Premises
    installation: Installation
    control: Callable[[str, int], ServerControl]
    """For a server's id and port."""
    policy: RestartPolicy
    restart: bool
    """Whether a server that was up and crashed is started again at once. Otherwise it is reported as down, and the next ``start``
    brings it up, after the same waits."""
    on_down: Callable[[ServerStatus], None]
    """Called when a server that was up is down and stays so, unasked."""
    clock: Clock = time.monotonic
    chance: Callable[[], float] = random.random
    """In [0, 1), for the jitter."""
