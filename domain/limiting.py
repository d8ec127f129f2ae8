"""Limits as one request meets them, and how they are counted: the same in one process and, by Redis, in many."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

WINDOW_S = 60.0
"""What limits per minute look back on."""
NUM_SLOTS = 200
"""Parts of the window. What was used leaves it up to a part late, never early: so no minute has more than the limit, and a caller gets
half a percent less of it at most."""
SLOT_S = WINDOW_S / NUM_SLOTS
BUSY_RETRY_S = 1.0
"""When to come back with too many requests at once: answers take seconds."""


class Kind(Enum):
    """How a rule counts. Values stand in the Redis script."""

    WINDOW = "w"
    """What was used in the last 60 seconds."""
    BUDGET = "b"
    """What was used in a day or month."""
    CONCURRENCY = "c"
    """What runs now."""


class Unit(Enum):
    """What a rule counts. Values are part of Redis keys."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    USD = "usd"
    """In billionths."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit, as one request meets it."""

    kind: Kind
    unit: Unit
    limit: int
    cost: int
    period: str = ""
    """Of a budget: the day or month."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request may run, and how each rule stands: all of them took their cost, or none did."""

    refused_by: int | None
    """The first rule that refused, by its place."""
    retry_after_s: float
    left: tuple[int, ...]
    """(rules) that may still be used."""
    reset_s: tuple[float, ...]
    """(rules) until a window is as if nothing had been used."""
    slot: int = 0
    """Of the windows: where the cost stands."""
