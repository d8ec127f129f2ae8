"""What admission needs from the outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from domain.limiting import Rule, Verdict
from domain.spending import Spent
from domain.trace import Trace


class Ledger(Protocol):
    """What keys have spent, for good."""

    def spent(self, key_id: str, period: str) -> Spent | None:
        """In a day or month, up to now; None when it was not loaded yet."""
        ...

    async def load(self, key_id: str, period: str) -> Spent:
        """The same, read. Raises ``StorageError``."""
        ...

    def emit(self, trace: Trace) -> None:
        """Count what *trace* used."""
        ...


class Counters(Protocol):
    """How the limits of every key stand, for one process or for all."""

    async def take(self, key_id: str, lease: str, rules: Sequence[Rule]) -> Verdict:
        """All of *rules*, or none. What runs counts under *lease* until it is settled. Raises ``NotReady`` when nobody can tell."""
        ...

    def settle(self, key_id: str, lease: str, rules: Sequence[Rule], costs: Sequence[int], slot: int) -> None:
        """The request has ended and each of *rules* has cost so much. Never waits, never raises."""
        ...

    def charge(self, key_id: str, spent: Spent, rules: Sequence[Rule]) -> None:
        """Something that was not taken before has used budgets. Never waits, never raises."""
        ...

    async def close(self) -> None:
        """Tell what is not told yet."""
        ...
