"""The batches of one process: taken up when they are made or left behind, given up when it stops, none in another's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from domain.batch import Batch, BatchRunner, BatchState, RequestCounts
from domain.chat import ChatRequest
from domain.errors import StorageError
from orchestrator.answer import Answer
from orchestrator.batch.ports import BatchStore
from orchestrator.batch.service import BatchService
from tests.fakes.batch_rig import CHAT, QUICK, ChatLines, Rig, chat_line
from tests.fakes.workers import Stalls
from tests.integration.batch.conftest import MakeRig

WITHIN_S = 10.0
EAGER = replace(QUICK, poll_s=0.01, first_rest_s=0.02, max_rest_s=0.02)
"""Looks all the time, and hardly rests."""


@asynccontextmanager
async def served(rig: Rig, owner: str = "one", store: BatchStore | None = None, **clock: Any) -> AsyncIterator[BatchService]:
    """A process's batches, run for the length of the block."""
    service = BatchService(rig.engine(owner, store), store or rig.store, owner=owner, limits=rig.limits, **clock)
    running = asyncio.create_task(service.run())
    try:
        yield service
        assert not running.done(), running.exception()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def over(rig: Rig, batch_id: str = "batch_1") -> Batch:
    """The batch when it is over."""
    async with asyncio.timeout(WITHIN_S):
        while not (batch := await rig.store.get(batch_id)).state.is_final:
            await asyncio.sleep(0.01)
    return batch


class Breaks(ChatLines):
    """The shape has a bug: answers to these texts cannot be written."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def answer(self, request: ChatRequest, body: Mapping[str, Any], answer: Answer) -> Mapping[str, Any]:
        if request.messages[-1]["content"] in self.texts:
            raise KeyError("a bug")
        return super().answer(request, body, answer)


async def test_a_batch_is_taken_up_as_soon_as_it_is_made(make_rig: MakeRig) -> None:
    """Woken: the next look by itself would be in an hour."""
    rig = make_rig({"a": "fine"}, "a", limits=replace(QUICK, poll_s=3600.0))
    async with served(rig) as service:
        for number in (1, 2):
            await rig.submit(chat_line("x", "hello"), batch_id=f"batch_{number}")
            service.wake()
            batch = await over(rig, f"batch_{number}")
            assert batch.counts == RequestCounts(1, 1, 0)
        assert service.news("batch_1") is None


async def test_how_a_batch_is_getting_on_can_be_asked(make_rig: MakeRig) -> None:
    rig = make_rig({"a": Stalls()}, "a", limits=EAGER)
    await rig.submit(chat_line("x", "hello"), chat_line("y", "hello"))
    async with served(rig) as service:
        await rig.workers.until_started("a", 2)  # type: ignore[attr-defined]
        news = service.news("batch_1")
        assert news is not None
        assert (news.num_calls, news.num_calls_done, news.working) == (2, 0, ("a",))


async def test_what_a_killed_process_has_left_is_taken_up_when_its_lease_has_run_out(make_rig: MakeRig) -> None:
    clock = [1000.0]
    rig = make_rig({"a": "fine"}, "a", now=lambda: clock[0], limits=EAGER)
    await rig.submit(chat_line("x", "hello"))
    await rig.claimed("killed")
    async with served(rig):
        clock[0] += EAGER.lease_s - 1
        await asyncio.sleep(0.1)
        assert rig.workers.calls == []  # type: ignore[attr-defined]
        clock[0] += 2
        assert (await over(rig)).state is BatchState.COMPLETED


class Waits:
    """An engine that ends the moment it is cancelled."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()

    async def run(self, batch: Batch, on_news: object) -> Batch:
        del on_news
        self.has_begun.set()
        await asyncio.Event().wait()
        return batch


class SlowToRelease:
    """*store*, with many turns of the loop between the wish to release a batch and its being done."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def release(self, batch_id: str, owner: str) -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        await self._store.release(batch_id, owner)


async def test_a_batch_is_given_up_although_other_lanes_end_sooner(make_rig: MakeRig) -> None:
    rig, engine = make_rig({"a": "fine"}, "a", limits=EAGER), Waits()
    await rig.submit(chat_line("x", "hello"))
    service = BatchService(engine, SlowToRelease(rig.store), owner="one", limits=EAGER)  # type: ignore[arg-type]
    running = asyncio.create_task(service.run())
    await asyncio.wait_for(engine.has_begun.wait(), WITHIN_S)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert await rig.store.claim("two", lease_s=60, runner=BatchRunner.SERVICE) is not None


async def test_a_service_that_stops_gives_its_batch_up_at_once(make_rig: MakeRig) -> None:
    """Another process need not wait for the lease; what was answered is kept."""
    rig = make_rig({"a": "fine", "b": Stalls()}, choose=lambda query: [query.request.messages[-1]["content"]], limits=EAGER)
    await rig.submit(chat_line("x", "a"), chat_line("y", "b"))
    async with served(rig):
        await rig.workers.until_started("b")  # type: ignore[attr-defined]

    claimed = await rig.store.claim("two", lease_s=60, runner=BatchRunner.SERVICE)

    assert claimed is not None
    rig.workers.release("b")  # type: ignore[attr-defined]
    await rig.engine("two").run(claimed)
    assert sorted(await rig.answers()) == ["x", "y"]
    assert len(rig.workers.calls_to("a")) == 1  # type: ignore[attr-defined]


async def test_a_process_that_cannot_start_servers_takes_no_batch_up_but_ends_what_is_cancelled(make_rig: MakeRig) -> None:
    rig = make_rig({"a": "fine"}, "a", limits=EAGER)
    trouble: list[str | None] = ["another process manages them"]
    asked = asyncio.Event()

    def obstacle() -> str | None:
        asked.set()
        return trouble[0]

    await rig.submit(chat_line("x", "hello"))
    await rig.submit(chat_line("y", "hello"), batch_id="batch_2")
    await rig.store.cancel("batch_2")
    async with served(rig, obstacle=obstacle):
        assert (await over(rig, "batch_2")).state is BatchState.CANCELLED
        async with asyncio.timeout(WITHIN_S):
            for _ in range(3):
                asked.clear()
                await asked.wait()
        assert await rig.store.claim("two", lease_s=0, runner=BatchRunner.SERVICE) is not None, "nobody has it"
        await rig.store.release("batch_1", "two")
        trouble[0] = None
        assert (await over(rig)).counts == RequestCounts(1, 1, 0)


async def test_trouble_in_the_middle_gives_the_batch_back_as_it_is(make_rig: MakeRig) -> None:
    """However often: it is no fault of the batch's, and no line's."""
    rig = make_rig({"a": "fine"}, "a", limits=EAGER)
    rig.fleet.trouble = "another process manages them"
    await rig.submit(chat_line("x", "hello"))
    async with served(rig):
        async with asyncio.timeout(WITHIN_S):
            while rig.fleet.num_tried <= EAGER.max_breaks:
                await asyncio.sleep(0.01)
        rig.fleet.trouble = None
        assert (await over(rig)).counts == RequestCounts(1, 1, 0)


async def test_a_batch_that_breaks_by_a_bug_is_given_up_and_stops_no_other(make_rig: MakeRig, caplog: pytest.LogCaptureFixture) -> None:
    """Three attempts, then it has failed: it says so, the log says why, and what was answered is in its output file."""
    rig = make_rig({"a": "fine"}, "a", limits=EAGER, shapes={CHAT: Breaks("poison")})
    await rig.submit(chat_line("good", "hello"), chat_line("bad", "poison"), age_s=10)
    await rig.submit(chat_line("x", "hello"), batch_id="batch_2")
    async with served(rig):
        broken, other = await over(rig), await over(rig, "batch_2")

    assert other.state is BatchState.COMPLETED
    assert broken.state is BatchState.FAILED
    (error,) = broken.errors
    assert error.code == "internal_error"
    assert "internal error (KeyError), the log has the details" in error.message
    assert broken.counts == RequestCounts(2, 1, 1)
    assert list(await rig.answers()) == ["good"]
    assert (await rig.errors())["bad"]["error"]["code"] == "internal_error"
    assert len([record for record in caplog.records if "broke off" in record.message and record.exc_info]) == 3


async def test_a_panel_that_breaks_by_a_bug_does_not_cost_the_others_their_answers(make_rig: MakeRig) -> None:
    """Its calls are kept when the bug hits its result."""
    rig = make_rig({"a": "fine", "b": "fine"}, "a", "b", limits=EAGER, shapes={CHAT: Breaks("poison")})
    await rig.submit(*(chat_line(text, text, model="consilium/vote") for text in ("one", "two", "poison")))
    async with served(rig):
        broken = await over(rig)

    assert broken.state is BatchState.FAILED
    assert sorted(await rig.answers()) == ["one", "two"]
    assert list(await rig.errors()) == ["poison"]
    assert len(rig.workers.calls) == 6  # type: ignore[attr-defined]


async def test_a_bug_in_a_batch_that_was_cancelled_ends_it_as_cancelled(make_rig: MakeRig) -> None:
    class BrokenFiles:
        def __init__(self, rig: Rig) -> None:
            self._files = rig.files

        def __getattr__(self, name: str) -> Any:
            return getattr(self._files, name)

        async def write(self, *_: object) -> None:
            raise KeyError("a bug")

    rig = make_rig({"a": Stalls()}, "a", limits=EAGER)
    rig.files = BrokenFiles(rig)  # type: ignore[assignment]
    await rig.submit(chat_line("x", "hello"))
    async with served(rig):
        await rig.workers.until_started("a")  # type: ignore[attr-defined]
        await rig.store.cancel("batch_1")
        batch = await over(rig)

    assert batch.state is BatchState.CANCELLED
    assert "internal error" in batch.errors[0].message
    assert batch.error_file_id is None


async def test_a_batch_is_kept_while_it_is_given_up(make_rig: MakeRig) -> None:
    """Its files may take longer than its lease."""
    renewed = asyncio.Event()

    class Counting:
        """A store that counts what keeps a batch, once it is being given up."""

        def __init__(self, rig: Rig) -> None:
            self._rig, self.is_writing, self.num_renewed = rig, False, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._rig.store, name)

        async def renew(self, *given: Any, **named: Any) -> Any:
            self.num_renewed += self.is_writing
            if self.num_renewed >= 2:
                renewed.set()
            return await self._rig.store.renew(*given, **named)

    class Slow:
        def __init__(self, rig: Rig) -> None:
            self._files = rig.files

        def __getattr__(self, name: str) -> Any:
            return getattr(self._files, name)

        async def write(self, *given: Any, **named: Any) -> Any:
            store.is_writing = True
            async with asyncio.timeout(WITHIN_S):
                await renewed.wait()
            return await self._files.write(*given, **named)

    rig = make_rig({"a": "fine"}, "a", limits=EAGER, shapes={CHAT: Breaks("poison")})
    await rig.submit(chat_line("good", "hello"), chat_line("bad", "poison"))
    store = Counting(rig)
    rig.files = Slow(rig)  # type: ignore[assignment]
    async with served(rig, store=store):  # type: ignore[arg-type]
        batch = await over(rig)

    assert batch.state is BatchState.FAILED
    assert list(await rig.answers()) == ["good"]


class Sick:
    """A store whose journal of one batch cannot be written, until it is well again."""

    def __init__(self, rig: Rig, batch_id: str) -> None:
        self._rig, self._batch_id, self.is_sick, self.num_tried = rig, batch_id, True, 0
        self.num_looks = 0
        """How often a batch was looked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rig.store, name)

    async def claim(self, *given: Any, **named: Any) -> Any:
        self.num_looks += 1
        return await self._rig.store.claim(*given, **named)

    def journal(self, batch_id: str, owner: str) -> Any:
        journal = self._rig.store.journal(batch_id, owner)
        if self.is_sick and batch_id == self._batch_id:
            self.num_tried += 1

            async def keep_lines(_lines: object) -> None:
                raise StorageError("the disk is full")

            journal.keep_lines = keep_lines  # type: ignore[method-assign]
        return journal


async def test_a_batch_that_the_disk_has_no_room_for_is_tried_on_and_on_while_others_are_done(make_rig: MakeRig) -> None:
    """More often than a bug would be; it is done as soon as there is room."""
    rig = make_rig({"a": "fine"}, "a", limits=EAGER)
    await rig.submit(chat_line("x", "hello"), age_s=10)
    await rig.submit(chat_line("y", "hello"), batch_id="batch_2")
    store = Sick(rig, "batch_1")
    async with served(rig, store=store):  # type: ignore[arg-type]
        assert (await over(rig, "batch_2")).state is BatchState.COMPLETED
        async with asyncio.timeout(WITHIN_S):
            while store.num_tried <= 2 * EAGER.max_breaks:
                await asyncio.sleep(0.01)
        assert not (await rig.store.get("batch_1")).state.is_final
        store.is_sick = False
        assert (await over(rig)).state is BatchState.COMPLETED


async def test_a_batch_that_broke_off_rests_before_it_is_tried_again(make_rig: MakeRig) -> None:
    clock = [0.0]
    rig = make_rig({"a": "fine"}, "a", limits=replace(EAGER, first_rest_s=5.0, max_rest_s=60.0))
    await rig.submit(chat_line("x", "hello"))
    store = Sick(rig, "batch_1")
    async with served(rig, store=store, clock=lambda: clock[0]) as service:  # type: ignore[arg-type]
        for rest_s, num_tried in ((5.0, 1), (10.0, 2), (20.0, 3)):
            async with asyncio.timeout(WITHIN_S):
                while store.num_tried < num_tried or service.news("batch_1") is not None:  # until the attempt is over
                    await asyncio.sleep(0.01)
            clock[0] += rest_s - 1
            num_looks = store.num_looks
            async with asyncio.timeout(WITHIN_S):
                while store.num_looks < num_looks + 10:
                    await asyncio.sleep(0.01)
            assert store.num_tried == num_tried
            clock[0] += 2


async def test_a_batch_that_waits_is_cancelled_without_waiting_for_its_turn(make_rig: MakeRig) -> None:
    rig = make_rig({"a": Stalls()}, "a", limits=replace(QUICK, poll_s=3600.0))
    await rig.submit(chat_line("x", "hello"), age_s=10)
    async with served(rig) as service:
        await rig.workers.until_started("a")  # type: ignore[attr-defined]
        await rig.submit(chat_line("y", "hello"), batch_id="batch_2")
        await rig.store.cancel("batch_2")
        service.wake()
        assert (await over(rig, "batch_2")).state is BatchState.CANCELLED


async def test_a_batch_that_waits_expires_without_waiting_for_its_turn(make_rig: MakeRig) -> None:
    clock = [1000.0]
    rig = make_rig({"a": Stalls()}, "a", now=lambda: clock[0], limits=EAGER)
    await rig.submit(chat_line("x", "hello"), age_s=10)
    async with served(rig):
        await rig.workers.until_started("a")  # type: ignore[attr-defined]
        await rig.submit(chat_line("y", "hello"), batch_id="batch_2", window_s=30.0)
        clock[0] += 31
        assert (await over(rig, "batch_2")).state is BatchState.EXPIRED


async def test_a_process_does_not_take_its_own_batch_over(make_rig: MakeRig) -> None:
    """The database was away for longer than the lease; another lane of the same process is free."""
    clock = [1000.0]
    limits = replace(EAGER, max_batches=2, watch_s=30.0)
    rig = make_rig({"a": Stalls()}, "a", now=lambda: clock[0], limits=limits)
    await rig.submit(chat_line("x", "hello"), window_s=1e9)
    async with served(rig):
        await rig.workers.until_started("a")  # type: ignore[attr-defined]
        clock[0] += limits.lease_s + 1
        await asyncio.sleep(0.1)
        rig.workers.release("a")  # type: ignore[attr-defined]
        await over(rig)

    assert len(rig.workers.calls) == 1  # type: ignore[attr-defined]


async def test_looking_for_batches_goes_on_whatever_goes_wrong(make_rig: MakeRig) -> None:
    rig = make_rig({"a": "fine"}, "a", limits=EAGER)
    await rig.submit(chat_line("x", "hello"))

    class Odd:
        num_left = 5

        def __getattr__(self, name: str) -> Any:
            return getattr(rig.store, name)

        async def claim(self, *arguments: Any, **named: Any) -> Batch | None:
            if self.num_left:
                self.num_left -= 1
                raise RuntimeError("the driver has a bug")
            return await rig.store.claim(*arguments, **named)

    async with served(rig, store=Odd()):  # type: ignore[arg-type]
        assert (await over(rig)).state is BatchState.COMPLETED
