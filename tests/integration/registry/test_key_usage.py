"""What keys used is counted once, whoever gives up while it is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.chat import Usage
from domain.errors import StorageError
from domain.experts import Backend, ExpertCard, Price
from domain.plan import CallRole
from domain.spending import Spent
from domain.trace import CallRecord, Trace
from experts_registry.database import Database
from experts_registry.key_usage import UsageLedger

NOON = 1_700_000_000.0
DAY = "2023-11-14"
CARD = ExpertCard("x", Backend.EMBEDDED, "x", price=Price(2.0, 3.0))
SOON_S = 30.0


def trace(**changes: Any) -> Trace:
    calls = (
        CallRecord("x", CallRole.CANDIDATE, "ok", 5.0, Usage(10, 2)),
        CallRecord("y", CallRole.CANDIDATE, "error", 5.0, Usage(1, 0)),
        CallRecord("y", CallRole.CANDIDATE, "skipped", 0.0),
    )
    return Trace("r", "auto", "auto", NOON, "ok", calls=calls, key_id="team", **changes)


def ledger_of(database: Database, **options: Any) -> UsageLedger:
    return UsageLedger(database, {"x": CARD}.get, now=lambda: NOON, **options)


async def counted(ledger: UsageLedger) -> dict[str | None, tuple[int, int, int, int, int]]:
    rows = [(row.expert_id, row.count) for row in await ledger.usage()]
    return {who: (n.num_requests, n.num_calls, n.num_failed, n.prompt_tokens + n.completion_tokens, n.nano_usd) for who, n in rows}


class Held:
    """A database whose transactions do not return from their commit until they are let go."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.committed, self.go_on = asyncio.Event(), asyncio.Event()
        whole = database.session

        @asynccontextmanager
        async def session() -> AsyncIterator[AsyncConnection]:
            async with whole() as connection:
                yield connection
            self.committed.set()
            await self.go_on.wait()

        monkeypatch.setattr(database, "session", session)


async def turns(number: int = 20) -> None:
    """So many turns of the loop, for what can go on without waiting."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_requests_and_calls_are_counted_by_key_day_and_expert(database: Database) -> None:
    ledger = ledger_of(database)
    for _ in range(2):
        ledger.emit(trace())
    ledger.count("team", "encoder", 7, started_at=NOON)
    await ledger.flush()
    ledger.emit(trace())

    assert await ledger.load("team", DAY) == Spent(46, 3 * 26_000)
    assert await counted(ledger) == {
        None: (4, 0, 0, 0, 0),
        "x": (0, 3, 0, 36, 3 * 26_000),
        "y": (0, 3, 3, 3, 0),
        "encoder": (0, 1, 0, 7, 0),
    }


async def test_what_is_being_written_when_the_service_ends_is_written_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(database, monkeypatch)
    ledger = ledger_of(database, flush_s=0.0)
    ledger.emit(trace())
    await ledger.start()
    async with asyncio.timeout(SOON_S):
        await held.committed.wait()
        closing = asyncio.create_task(ledger.close())
        await turns()
        held.go_on.set()
        await closing

    assert (await counted(ledger))["x"] == (0, 1, 0, 12, 26_000)


async def test_who_asks_and_leaves_does_not_have_it_written_twice(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(database, monkeypatch)
    ledger = ledger_of(database)
    ledger.emit(trace())
    asking = asyncio.create_task(ledger.usage())
    async with asyncio.timeout(SOON_S):
        await held.committed.wait()
        asking.cancel()
        await asyncio.wait([asking])
        held.go_on.set()

        assert (await counted(ledger))["x"] == (0, 1, 0, 12, 26_000)


async def test_what_cannot_be_written_is_counted_on(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = ledger_of(database)
    await ledger.load("team", DAY)
    ledger.emit(trace())

    @asynccontextmanager
    async def broken() -> AsyncIterator[AsyncConnection]:
        raise StorageError("the database is down")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(database, "session", broken)
        with pytest.raises(StorageError):
            await ledger.flush()
        ledger.emit(trace())
        assert ledger.spent("team", DAY) == Spent(26, 2 * 26_000)

    await ledger.start()
    await ledger.close()
    assert (await counted(ledger))["x"] == (0, 2, 0, 24, 2 * 26_000)
