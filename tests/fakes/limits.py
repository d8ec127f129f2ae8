"""A ledger of what keys have spent, and an audit log, in memory."""

from __future__ import annotations

from domain.audit import AuditEntry
from domain.spending import NOTHING, Spent
from domain.trace import Trace


class MemoryLedger:
    """``loaded`` tells what was asked for."""

    def __init__(self) -> None:
        self.totals: dict[tuple[str, str], Spent] = {}
        self.loaded: set[tuple[str, str]] = set()

    def spent(self, key_id: str, period: str) -> Spent | None:
        return self.totals.get((key_id, period), NOTHING) if (key_id, period) in self.loaded else None

    async def load(self, key_id: str, period: str) -> Spent:
        self.loaded.add((key_id, period))
        return self.totals.get((key_id, period), NOTHING)

    def add(self, key_id: str, period: str, spent: Spent) -> None:
        self.totals[key_id, period] = self.totals.get((key_id, period), NOTHING) + spent

    def emit(self, trace: Trace) -> None:
        """Nothing: tests add what they mean."""

    def count(self, key_id: str, expert_id: str, prompt_tokens: int, *, started_at: float) -> None:
        """Nothing either."""


class MemoryAudit:
    """Keeps every entry."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    async def add(self, entry: AuditEntry) -> None:
        self.entries.append(entry)
