"""Who changed what on the admin plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change, or one that was refused to a role. Holds no secret."""

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
    """What the address held, where it holds one thing; None where there was none."""
    after: Any = None
    """What was answered."""
