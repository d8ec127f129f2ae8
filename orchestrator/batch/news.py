"""How a batch is getting on, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from domain.batch import RequestCounts


class Phase(StrEnum):
    READING = "reading"
    ROUTING = "routing"
    RUNNING = "running"
    WRITING = "writing"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class BatchNews:
    """One picture. ``num_calls`` and what follows are of the present plan, so known once everything is routed."""

    phase: Phase
    counts: RequestCounts
    num_routed: int = 0
    num_calls: int = 0
    num_calls_done: int = 0
    num_turns: int = 0
    num_turns_done: int = 0
    num_loads: int = 0
    num_loads_done: int = 0
    working: tuple[str, ...] = ()
    """Experts whose calls run now, and servers that are being loaded ("loading numerals")."""
    left_s: float | None = None
    """Predicted by what was measured so far."""


OnNews = Callable[[BatchNews], None]
