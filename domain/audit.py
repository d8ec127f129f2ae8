"""Who changed what on the admin plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change that was made. Holds no secret."""

    id: str
    at: float
    """Seconds since the epoch."""
    actor: str
    """The id of the key that it came with; ``admin`` for the admin key."""
    role: str
    method: str
    path: str
    status: int
    request_id: str
    before: Any = None
    """What the address held, where it holds one thing; None where there was none, and of requests that are forgotten."""
    after: Any = None
    """What was answered."""
