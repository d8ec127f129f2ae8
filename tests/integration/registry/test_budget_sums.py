"""A budget that is spent stays spent while what was spent is read again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from domain.keys import KeyLimits
from domain.spending import Spent
from experts_registry.database import Database
from experts_registry.key_usage import UsageLedger
from orchestrator.admission.in_process import InProcessCounters
from orchestrator.admission.rules import rules_of

NOON = 1_795_608_000.0
"""2026-11-25, 12:00 UTC."""
TODAY = "2026-11-25"


class Gated(UsageLedger):
    """Reads when it may."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, lambda _: None, now=lambda: NOON)
        self.reads, self.may_read = asyncio.Event(), asyncio.Event()

    async def _read(self, key_ids: Sequence[str], periods: Sequence[str]) -> dict[tuple[str, str], Spent]:
        self.reads.set()
        await self.may_read.wait()
        return await super()._read(key_ids, periods)


async def spend(database: Database, num_tokens: int) -> None:
    """Another process has used the key."""
    other = UsageLedger(database, lambda _: None, now=lambda: NOON)
    other.count("k", "e", num_tokens, started_at=NOON)
    await other.flush()


async def test_what_was_asked_for_is_not_told_before_it_was_read(database: Database) -> None:
    await spend(database, 100)
    ledger = Gated(database)
    assert ledger.spent("k", TODAY) is None
    refreshing = asyncio.create_task(ledger._refresh())
    await ledger.reads.wait()

    assert ledger.spent("k", TODAY) is None
    ledger.may_read.set()
    await refreshing
    assert ledger.spent("k", TODAY) == Spent(100, 0)


async def test_a_spent_budget_refuses_while_it_is_read_for_the_first_time(database: Database) -> None:
    await spend(database, 100)
    ledger = Gated(database)
    counters = InProcessCounters(ledger)
    ledger.spent("k", TODAY)  # as a batch's lines ask
    refreshing = asyncio.create_task(ledger._refresh())
    await ledger.reads.wait()
    taking = asyncio.create_task(counters.take("k", "lease", rules_of(KeyLimits(tokens_per_day=100), Spent(1, 0), NOON)))
    for _ in range(20):  # turns in which it would be let in
        await asyncio.sleep(0)
    ledger.may_read.set()
    await refreshing

    assert (await taking).refused_by == 0


async def test_what_is_known_is_told_while_it_is_read_again(database: Database) -> None:
    await spend(database, 100)
    ledger = Gated(database)
    ledger.may_read.set()
    await ledger.load("k", TODAY)
    await spend(database, 50)
    ledger.may_read.clear()
    ledger.reads.clear()
    refreshing = asyncio.create_task(ledger._refresh())
    await ledger.reads.wait()

    assert ledger.spent("k", TODAY) == Spent(100, 0)
    ledger.may_read.set()
    await refreshing
    assert ledger.spent("k", TODAY) == Spent(150, 0)
