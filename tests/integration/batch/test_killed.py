"""Kills, outages and takeovers at every point: no line is lost, none is answered twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from domain.batch import Batch, BatchError, BatchRunner, BatchState, InputLine, KeptCall, LineResult, LineRoute, RequestCounts, RoutedLine
from domain.errors import Conflict, StorageError
from domain.plan import Outcome
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.ports import BatchJournal
from tests.fakes.batch_rig import QUICK, Rig, chat_line
from tests.fakes.workers import Stalls
from tests.integration.batch.conftest import MakeRig
from tests.integration.batch.test_engine import ECHOES, named_in_the_text

NUM_LINES = 12


class Killed(BaseException):
    """The process is gone: nothing that follows in it counts."""


class Fuse:
    """Burns with every write; when it is over the process is killed, before the write or right after it."""

    def __init__(self, num_writes: int, *, after: bool) -> None:
        self.left, self.after, self.blown = num_writes, after, False

    def before(self) -> None:
        if self.blown:
            raise Killed
        if not self.left and not self.after:
            self.blown = True
            raise Killed

    def behind(self) -> None:
        if not self.left:
            self.blown = True
            raise Killed
        self.left -= 1


class FusedJournal:
    """A journal whose writes a ``Fuse`` counts."""

    def __init__(self, journal: BatchJournal, fuse: Fuse) -> None:
        self._journal, self._fuse = journal, fuse

    async def keep_lines(self, lines: Sequence[InputLine]) -> None:
        self._fuse.before()
        await self._journal.keep_lines(lines)
        self._fuse.behind()

    async def drop_lines(self) -> None:
        self._fuse.before()
        await self._journal.drop_lines()
        self._fuse.behind()

    async def keep_routes(self, routes: Sequence[tuple[int, LineRoute]]) -> None:
        self._fuse.before()
        await self._journal.keep_routes(routes)
        self._fuse.behind()

    async def keep(self, calls: Sequence[KeptCall], results: Sequence[LineResult], *, num_calls: int) -> Batch:
        self._fuse.before()
        batch = await self._journal.keep(calls, results, num_calls=num_calls)
        self._fuse.behind()
        return batch

    def pending(self) -> AsyncIterator[RoutedLine]:
        return self._journal.pending()

    async def lines(self, numbers: Sequence[int]) -> Mapping[int, RoutedLine]:
        return await self._journal.lines(numbers)

    async def calls(self, numbers: Sequence[int]) -> Mapping[int, Mapping[int, Outcome]]:
        return await self._journal.calls(numbers)

    def settled(self) -> AsyncIterator[tuple[int, int, bool]]:
        return self._journal.settled()

    def results(self, *, failed: bool) -> AsyncIterator[tuple[str, LineResult]]:
        return self._journal.results(failed=failed)


class FusedStore:
    """A store whose state changes and journals a ``Fuse`` counts."""

    def __init__(self, rig: Rig, fuse: Fuse) -> None:
        self._store, self._fuse = rig.store, fuse

    async def get(self, batch_id: str) -> Batch:
        return await self._store.get(batch_id)

    async def claim(self, owner: str, *, lease_s: float, runner: BatchRunner | None, **which: Any) -> Batch | None:
        return await self._store.claim(owner, lease_s=lease_s, runner=runner, **which)

    async def renew(self, batch_id: str, owner: str, *, lease_s: float) -> Batch:
        return await self._store.renew(batch_id, owner, lease_s=lease_s)

    async def release(self, batch_id: str, owner: str) -> None:
        await self._store.release(batch_id, owner)

    async def enter(self, batch_id: str, state: BatchState, *, errors: Sequence[BatchError] = (), **more: Any) -> Batch:
        self._fuse.before()
        batch = await self._store.enter(batch_id, state, errors=errors, **more)
        self._fuse.behind()
        return batch

    def journal(self, batch_id: str, owner: str) -> FusedJournal:
        return FusedJournal(self._store.journal(batch_id, owner), self._fuse)


async def run_until_killed(rig: Rig, clock: list[float], fuse: Fuse, owner: str) -> bool:
    """Whether it got to the end. A process that was killed lets its lease run out."""
    batch = await rig.claimed(owner)
    try:
        await rig.engine(owner, FusedStore(rig, fuse)).run(batch)
    except (Killed, StorageError):  # the ledger tells its users that it has ended
        assert fuse.blown
        clock[0] += rig.limits.lease_s + 1
        return False
    return True


@pytest.mark.parametrize("after", [False, True], ids=["before it is durable", "when it is durable"])
async def test_killed_at_every_write_one_after_the_other(make_rig: MakeRig, after: bool) -> None:
    """Each run is killed one write later than the one before made progress, until the batch is done. Every line is answered once,
    as it would have been without."""
    clock = [1000.0]
    rig = make_rig(ECHOES, choose=named_in_the_text, memory_mb=2, now=lambda: clock[0])
    lines = [chat_line(str(n), f"{'abcd'[n % 4]}{'abcd'[(n + 1) % 4]} {n}", model="consilium/panel") for n in range(NUM_LINES)]
    await rig.submit(*lines, window_s=1e9)

    num_runs = 0
    while not await run_until_killed(rig, clock, Fuse(int(after) or num_runs % 3, after=after), f"process {num_runs}"):
        num_runs += 1
        assert num_runs < 400

    answers = await rig.answers()
    batch = await rig.store.get("batch_1")
    assert num_runs > 5
    assert sorted(answers, key=int) == [str(n) for n in range(NUM_LINES)]
    assert batch.counts == RequestCounts(NUM_LINES, NUM_LINES, 0)
    for n in range(NUM_LINES):
        assert answers[str(n)]["body"]["choices"][0]["content"].startswith("fuser says")


async def test_what_was_kept_before_the_kill_is_not_asked_again(make_rig: MakeRig) -> None:
    """Killed while the second expert answers: the first one's answers stand."""
    clock = [1000.0]
    rig = make_rig({**ECHOES, "b": Stalls()}, "a", "b", now=lambda: clock[0])
    await rig.submit(*(chat_line(str(n), f"ab {n}", model="consilium/panel") for n in range(4)), window_s=1e9)
    first = asyncio.create_task(rig.run("first"))
    await rig.workers.until_started("b", 4)  # type: ignore[attr-defined]
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    clock[0] += rig.limits.lease_s + 1
    rig.workers.release("b")  # type: ignore[attr-defined]

    batch = await rig.run("second")

    assert batch.counts == RequestCounts(4, 4, 0)
    assert len(rig.workers.calls_to("a")) == 4  # type: ignore[attr-defined]


class Outage:
    """A store whose journal can be neither written nor read for a while, once calls are made."""

    def __init__(self, rig: Rig, num_failures: int) -> None:
        self._rig, self.left = rig, num_failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rig.store, name)

    def strike(self) -> None:
        if self.left:
            self.left -= 1
            raise StorageError("the connection was killed")

    def journal(self, batch_id: str, owner: str) -> Any:
        outage, journal = self, self._rig.store.journal(batch_id, owner)

        class Failing(FusedJournal):
            async def keep(self, calls: Sequence[KeptCall], results: Sequence[LineResult], *, num_calls: int) -> Batch:
                outage.strike()
                return await journal.keep(calls, results, num_calls=num_calls)

            async def lines(self, numbers: Sequence[int]) -> Mapping[int, RoutedLine]:
                outage.strike()
                return await journal.lines(numbers)

            async def calls(self, numbers: Sequence[int]) -> Mapping[int, Mapping[int, Outcome]]:
                outage.strike()
                return await journal.calls(numbers)

        return Failing(journal, Fuse(10**9, after=False))


async def test_a_database_that_is_away_for_a_while_costs_nothing(make_rig: MakeRig) -> None:
    """Whether it is read or written at that moment: no call is made again."""
    rig = make_rig(ECHOES, choose=named_in_the_text)
    await rig.submit(*(chat_line(str(n), f"ab {n}", model="consilium/panel") for n in range(NUM_LINES)))
    store, started = Outage(rig, 0), asyncio.create_task(rig.workers.until_started("a"))  # type: ignore[attr-defined]
    running = asyncio.create_task(rig.engine("one", store).run(await rig.claimed()))
    await started
    for _ in range(4):
        store.left = 1
        while store.left and not running.done():
            await asyncio.sleep(0)

    assert (await running).counts == RequestCounts(NUM_LINES, NUM_LINES, 0)
    assert len(rig.workers.calls) == 3 * NUM_LINES  # type: ignore[attr-defined]


async def test_a_database_that_stays_away_ends_the_run_and_not_the_batch(make_rig: MakeRig) -> None:
    """Somebody takes it up later, and finishes it."""
    clock = [1000.0]
    impatient = BatchLimits(chunk_lines=8, write_every_s=0.0, watch_s=0.01, storage_patience_s=0.05, last_write_s=0.1)
    rig = make_rig(ECHOES, choose=named_in_the_text, now=lambda: clock[0], limits=impatient)
    await rig.submit(*(chat_line(str(n), f"a {n}") for n in range(NUM_LINES)), window_s=1e9)

    with pytest.raises(StorageError):
        await rig.engine("one", Outage(rig, 10**6)).run(await rig.claimed())
    clock[0] += impatient.lease_s + 1
    batch = await rig.run("two")

    assert batch.counts == RequestCounts(NUM_LINES, NUM_LINES, 0)


async def test_who_was_too_slow_writes_nothing_any_more(make_rig: MakeRig) -> None:
    """The lease ran out while it waited, another has taken over: it stops, or sees that all is done, and the other's results stand
    alone."""
    clock = [1000.0]
    rig = make_rig({"a": Stalls()}, "a", now=lambda: clock[0], limits=BatchLimits(watch_s=30.0, write_every_s=0.0, last_write_s=0.1))
    await rig.submit(*(chat_line(str(n), f"a {n}") for n in range(3)), window_s=1e9)
    slow = asyncio.create_task(rig.run("slow"))
    await rig.workers.until_started("a", 3)  # type: ignore[attr-defined]
    clock[0] += rig.limits.lease_s + 1
    quick = asyncio.create_task(rig.run("quick"))
    await rig.workers.until_started("a", 6)  # type: ignore[attr-defined]

    rig.workers.release("a")  # type: ignore[attr-defined]
    batch = await quick
    (outcome,) = await asyncio.gather(slow, return_exceptions=True)

    assert isinstance(outcome, Conflict | StorageError) or outcome == batch
    assert batch.state is BatchState.COMPLETED
    assert batch.counts == RequestCounts(3, 3, 0)
    assert sorted(await rig.answers()) == ["0", "1", "2"]


@pytest.mark.parametrize("state", [BatchState.CANCELLING, BatchState.FINALIZING])
async def test_killed_while_it_ends_it_ends_later(make_rig: MakeRig, state: BatchState) -> None:
    """Between the last answer and the files, and between a cancellation and its effect."""
    clock = [1000.0]
    rig = make_rig(ECHOES, choose=named_in_the_text, now=lambda: clock[0])
    await rig.submit(chat_line("x", "a 1"), window_s=1e9)
    if state is BatchState.CANCELLING:
        await rig.store.cancel("batch_1")
    fuse = Fuse(10**9, after=False)
    engine, batch = rig.engine("first", FusedStore(rig, fuse)), await rig.claimed("first")
    while batch.state is not state:
        batch = await engine._step(batch, lambda _news: None)
    clock[0] += rig.limits.lease_s + 1

    over = await rig.run("second")

    assert over.state is (BatchState.CANCELLED if state is BatchState.CANCELLING else BatchState.COMPLETED)
    assert QUICK.lease_s == rig.limits.lease_s
