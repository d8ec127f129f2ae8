"""What the residency policy knows of servers. Values only.

A *server* is what is loaded: one process with one base model. Several experts (the base and its LoRA adapters) may live on it.
Memory is that of one host and of one kind (a GPU's, or the machine's), in MB; times are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from domain.errors import InvalidRequest

ROUNDING_MB = 1e-6
"""Sums of memory may differ by this much and still be equal: the same figures added in another order."""


class Action(StrEnum):
    """What is done to a server to free memory."""

    SLEEP = "sleep"
    """It stays, with less memory, and wakes quickly."""
    STOP = "stop"
    """It goes, with all its memory, and has to be loaded again."""


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """What is declared about one server. Raises ``InvalidRequest`` when it cannot be."""

    id: str
    memory_mb: float
    """Needed to load it and to serve."""
    asleep_mb: float | None = None
    """Still held while it sleeps; None when it cannot sleep."""
    load_s: float = 30.0
    """Assumed until measured. A tiny model on vLLM's CPU build takes 29 to 35 s."""
    sleep_s: float = 1.0
    """Assumed until measured; a guess."""
    wake_s: float = 1.0
    """Assumed until measured; a guess."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.memory_mb) and self.memory_mb > 0):
            raise InvalidRequest(f"server {self.id!r}: memory_mb is {self.memory_mb:.10g}, it must be above 0", param="memory_mb")
        if self.asleep_mb is not None and not 0 <= self.asleep_mb <= self.memory_mb:
            msg = f"server {self.id!r}: asleep_mb is {self.asleep_mb:.10g}, it must be between 0 and memory_mb ({self.memory_mb:.10g})"
            raise InvalidRequest(msg, param="asleep_mb")
        for name in ("load_s", "sleep_s", "wake_s"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise InvalidRequest(f"server {self.id!r}: {name} is {value:g}, it must be 0 or more", param=name)


@dataclass(frozen=True, slots=True)
class Resident:
    """One server that holds memory now, as an eviction policy sees it."""

    id: str
    memory_mb: float
    """Held now; what stopping it frees."""
    asleep_mb: float | None = None
    """What it would still hold asleep; None when it cannot sleep, or sleeps already."""
    pinned: bool = False
    busy: bool = False
    """It serves, or is on its way up or down: never evicted now."""
    last_use: float = 0.0
    """Grows with time; only its order counts."""
    next_use: float = math.inf
    """Place in the plan of its next use; infinite when the plan does not name it."""
    reuse_probability: float = 0.0
    """Of being the one that is needed next, in [0, 1]."""
    load_s: float = 0.0
    """Lost at its next use when it is stopped; of one that sleeps, beyond what waking takes anyway."""
    sleep_s: float = 0.0
    """Lost at once when it is put to sleep."""
    wake_s: float = 0.0
    """Lost at its next use when it is put to sleep."""
    serving: bool = False
    """Busy, but only with requests: it becomes idle when no new ones are let in."""
    speculative: bool = False
    """Idle in so far as nobody waits for it, but still loading: evicting it gives the load up."""

    @property
    def frees_asleep_mb(self) -> float:
        """What putting it to sleep frees; 0 when that is impossible."""
        return 0.0 if self.asleep_mb is None else max(0.0, self.memory_mb - self.asleep_mb)


@dataclass(frozen=True, slots=True)
class Eviction:
    """One server that has to give memory back."""

    server_id: str
    action: Action
    freed_mb: float


@dataclass(frozen=True, slots=True)
class Room:
    """There is room for the needed server once *evictions* are done; none when there was room already."""

    evictions: tuple[Eviction, ...] = ()


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The needed server cannot be loaded now."""

    server_id: str
    needed_mb: float
    host_mb: float
    pinned: tuple[tuple[str, float], ...] = ()
    """Servers that are in the way for as long as they are pinned, with what they hold."""
    busy: tuple[tuple[str, float], ...] = ()
    """Servers that are in the way while they work, with what they hold."""

    @property
    def for_good(self) -> bool:
        """Whether waiting is useless: it would not fit if nobody were busy."""
        return self.needed_mb + total_mb(held for _, held in self.pinned) > self.host_mb + ROUNDING_MB

    @property
    def message(self) -> str:
        """The whole case in a sentence, for people."""
        holders = [f"{kind} servers hold {_listed(held)}" for kind, held in (("pinned", self.pinned), ("busy", self.busy)) if held]
        because = f"; {' and '.join(holders)}" if holders else ""
        advice = f", so it can never fit: {'unpin a server, or ' if self.pinned else ''}give the host more memory" if self.for_good else ""
        return f"server {self.server_id!r} needs {self.needed_mb:.10g} MB and the host has {self.host_mb:.10g} MB{because}{advice}"


def total_mb(held: Iterable[float]) -> float:
    """Their sum, exactly rounded, so that it does not depend on their order."""
    return math.fsum(held)


def _listed(held: Iterable[tuple[str, float]]) -> str:
    held = tuple(held)
    return f"{total_mb(mb for _, mb in held):.10g} MB ({', '.join(repr(name) for name, _ in held)})"
