"""Ids that nobody can guess, made of the system's randomness a block at a time: asking it costs several times what an id does."""

from __future__ import annotations

import os
import time
from collections import deque

_NUM_BYTES = 16
_IDS_OF_A_BLOCK = 256

_ready = deque[str]()


def random_id() -> str:
    """128 random bits in 32 hexadecimal digits; from any thread."""
    try:
        return _ready.popleft()
    except IndexError:
        block = os.urandom(_NUM_BYTES * _IDS_OF_A_BLOCK).hex()
        digits = 2 * _NUM_BYTES
        first, *others = (block[start : start + digits] for start in range(0, len(block), digits))
        _ready.extend(others)
        return first


def ordered_id() -> str:
    """The milliseconds since the epoch and 80 random bits, in 32 hexadecimal digits: what was made later sorts later, as in UUIDv7.

    For what is kept under its id: an index to which keys are added at its end has one page to write for all of them, one with random keys
    a page for each. Nearly half of what it costs to keep a trace.
    """
    return f"{time.time_ns() // 1_000_000:012x}{random_id()[12:]}"


os.register_at_fork(after_in_child=_ready.clear)  # else a child would give out its parent's ids
