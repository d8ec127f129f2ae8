"""However a batch ends, what has ended of it is in its files, and nothing is left behind."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from domain.batch import (
    Batch,
    BatchLine,
    BatchState,
    FilePurpose,
    InputLine,
    KeptCall,
    LineResult,
    LineRoute,
    RequestCounts,
    RoutedLine,
)
from domain.errors import Conflict, StorageError
from domain.plan import Candidate, ExpertCall
from orchestrator.batch.ledger import JournalBroken, writing
from orchestrator.batch.work import BatchWork, LineRequest, Ready
from tests.fakes.batch_rig import QUICK, Rig, chat_line
from tests.fakes.batches import table_of
from tests.fakes.directory import card
from tests.fakes.workers import Says, Stalls
from tests.integration.batch.conftest import MakeRig

WITHIN_S = 10.0


def stalls_at(text: str) -> Any:
    return lambda call: Stalls() if call.messages[-1]["content"] == text else Says("fine")


async def counts_reach(rig: Rig, num_completed: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while (await rig.store.get("batch_1")).counts.completed < num_completed:
            await asyncio.sleep(0.01)


async def calls_ended(rig: Rig, num_calls: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while len(rig.workers.finished) < num_calls:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_a_panel_whose_calls_have_all_ended_is_answered_when_the_batch_is_stopped(make_rig: MakeRig, how: str) -> None:
    """Its last call ended in a round that was still on: its answer is as good as any."""
    clock = [1000.0]
    rig = make_rig({"a": "fine", "b": stalls_at("slow")}, "a", "b", now=lambda: clock[0])
    await rig.submit(*(chat_line(text, text, model="consilium/vote") for text in ("quick", "slow")))
    running = asyncio.create_task(rig.run())
    await rig.workers.until_started("b", 2)  # type: ignore[attr-defined]
    await calls_ended(rig, 3)

    if how == "cancelled":
        await rig.store.cancel("batch_1")
    else:
        clock[0] += 3601
    batch = await running

    assert batch.state == how
    assert list(await rig.answers()) == ["quick"]
    assert list(await rig.errors()) == ["slow"]
    assert len(rig.workers.calls) == 4  # type: ignore[attr-defined]


async def test_results_of_panels_come_in_while_a_round_goes_on(make_rig: MakeRig) -> None:
    """Whoever looks sees how far it is, and a chunk's worth is all that a kill leaves to be put together again."""
    rig = make_rig({"a": "fine", "b": stalls_at("slow")}, "a", "b", cards=(card("a"), card("b", max_in_flight=2)))
    texts = ["slow", *(f"quick {n}" for n in range(5 * QUICK.chunk_lines))]
    await rig.submit(*(chat_line(text, text, model="consilium/vote") for text in texts))
    running = asyncio.create_task(rig.run())

    await counts_reach(rig, 2 * QUICK.chunk_lines)
    rig.workers.release("b")  # type: ignore[attr-defined]

    assert (await running).counts == RequestCounts(len(texts), len(texts), 0)


async def test_calls_that_run_when_the_tokens_are_spent_are_paid_for_and_count(make_rig: MakeRig) -> None:
    """Four at a time and eight tokens each: the fourth call is over before the first, which spends the budget, tells."""
    order: list[ExpertCall] = []

    def a(call: ExpertCall) -> Any:
        order.append(call)
        return Stalls() if len(order) <= 4 else Says("too much")

    rig = make_rig({"a": a}, "a", cards=(card("a", max_in_flight=4),))
    await rig.submit(*(chat_line(str(n), f"a {n}") for n in range(9)), max_tokens=8)
    running = asyncio.create_task(rig.run())
    await rig.workers.until_started("a", 4)  # type: ignore[attr-defined]
    rig.workers.release("a")  # type: ignore[attr-defined]
    batch = await running

    assert batch.counts == RequestCounts(9, 4, 5)
    assert len(order) == 4
    assert rig.workers.cancelled == []  # type: ignore[attr-defined]
    assert {row["error"]["code"] for row in (await rig.errors()).values()} == {"batch_budget_exceeded"}


async def test_panels_that_the_tokens_sufficed_for_are_answered(make_rig: MakeRig) -> None:
    """Three candidates of eight tokens: 40 tokens are spent by the second one's second line."""
    rig = make_rig({"a": "x", "b": "x"}, "a", "b", cards=(card("a"), card("b", max_in_flight=1)))
    await rig.submit(*(chat_line(str(n), "hello", model="consilium/vote") for n in range(3)), max_tokens=40)

    batch = await rig.run()

    assert list(await rig.answers()) == ["0", "1"]
    assert batch.usage.total_tokens == 40


class SlowJournal:
    """A journal of two panels that writes when it is told to."""

    def __init__(self) -> None:
        self.may_write, self.asked = asyncio.Semaphore(0), asyncio.Event()
        self.outcomes: dict[int, dict[int, Any]] = {}

    async def keep(self, calls: Sequence[KeptCall], results: Sequence[LineResult], *, num_calls: int) -> Batch:
        self.asked.set()
        await self.may_write.acquire()
        for call in calls:
            self.outcomes.setdefault(call.number, {})[call.position] = call.outcome
        return Batch("b", "", "", BatchState.IN_PROGRESS, 0.0, 0.0)

    async def lines(self, numbers: Sequence[int]) -> dict[int, RoutedLine]:
        return {number: RoutedLine(InputLine(BatchLine(number, str(number)), 0, 1), VOTE_OF_TWO) for number in numbers}

    async def calls(self, numbers: Sequence[int]) -> dict[int, dict[int, Any]]:
        return {number: dict(self.outcomes.get(number, {})) for number in numbers}


class Outcomes:
    """The input file, and ``Requests`` that tell of how many calls each result was made."""

    def __init__(self) -> None:
        self.num_calls: dict[int, int] = {}

    async def bodies(self, lines: Sequence[InputLine]) -> list[dict[str, Any]]:
        return [{} for _ in lines]

    def request(self, number: int, body: Any) -> Any:
        return number

    def result(self, line: LineRequest, outcomes: dict[int, Any]) -> LineResult:
        self.num_calls[line.number] = len(outcomes)
        return LineResult(line.number, "r", 200, body={})


VOTE_OF_TWO = LineRoute("skills", ("a", "b"), (1.0, 0.5))


async def test_a_line_that_ends_while_others_get_their_results_is_not_answered_from_half_of_its_calls() -> None:
    """Buckets run side by side: the second line's last call ends while the first line's is being written."""
    journal, told, table = SlowJournal(), Outcomes(), table_of((("a", "b"), None), (("a", "b"), None))
    async with writing(journal, QUICK) as ledger:  # type: ignore[arg-type]
        work = BatchWork(
            table, array("I", [1, 2]), requests=told, file=told, journal=journal, ledger=ledger, limits=QUICK, max_tokens=None  # type: ignore[arg-type]
        )  # fmt: skip

        async def line_ends(line: int) -> None:
            for position, expert in enumerate("ab"):
                asked = LineRequest(line + 1, {}, None, VOTE_OF_TWO)  # type: ignore[arg-type]
                await work.settle(Ready(2 * line + position, position, asked, {}), Candidate(expert, ()))

        await line_ends(0)
        finishing = asyncio.create_task(work.finish())
        await journal.asked.wait()
        await line_ends(1)
        journal.may_write.release()
        for _ in range(50):  # whatever may happen before the second write
            await asyncio.sleep(0)
        for _ in range(10):
            journal.may_write.release()
        await finishing

    assert told.num_calls == {1: 2, 2: 2}


async def test_a_batch_whose_storage_is_ill_expires_all_the_same(make_rig: MakeRig) -> None:
    """Its input cannot be opened: that keeps it from working, not from ending."""
    clock = [1000.0]
    rig = make_rig({"a": "fine"}, "a", now=lambda: clock[0])
    await rig.submit(chat_line("x", "hello"), window_s=60)

    async def opened(_file_id: str) -> Any:
        raise StorageError("the content is not on this server")

    rig.files.open = opened  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        await rig.run()
    clock[0] += 61
    await rig.store.release("batch_1", "one")

    assert (await rig.run()).state is BatchState.EXPIRED


async def test_files_that_could_not_be_named_do_not_stay(make_rig: MakeRig) -> None:
    """A batch that is finished again and again must not fill the disk."""
    rig = make_rig({"a": "fine"}, "a")
    await rig.submit(chat_line("x", "hello"), chat_line("y", "hello", model="nobody"))
    write, num_written = rig.files.write, 0

    async def full(filename: str, lines: Any, *, key_id: str | None) -> Any:
        nonlocal num_written
        num_written += 1
        if filename.endswith("_error.jsonl"):
            raise StorageError("the disk is full")
        return await write(filename, lines, key_id=key_id)

    rig.files.write = full  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        await rig.run()
    assert num_written == 2
    assert await rig.files.list(purpose=FilePurpose.BATCH_OUTPUT) == []
    rig.files.write = write  # type: ignore[method-assign]
    await rig.store.release("batch_1", "one")

    assert (await rig.run()).counts == RequestCounts(2, 1, 1)
    assert len(await rig.files.list(purpose=FilePurpose.BATCH_OUTPUT)) == 2


async def test_files_stay_when_nobody_knows_whether_they_were_named(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is lost between the last commit and its answer: the batch is over, and its answers are there."""
    rig = make_rig({"a": "fine"}, "a")
    await rig.submit(chat_line("x", "hello"))
    enter = rig.store.enter

    async def entered(batch_id: str, state: BatchState, **more: Any) -> Batch:
        batch = await enter(batch_id, state, **more)
        if state.is_final:
            raise StorageError("the connection to the database was lost")
        return batch

    monkeypatch.setattr(rig.store, "enter", entered)
    with pytest.raises(StorageError):
        await rig.run()

    assert (await rig.store.get("batch_1")).state is BatchState.COMPLETED
    assert list(await rig.answers()) == ["x"]


@pytest.mark.parametrize(
    ("raised", "told"),
    [(Conflict("taken over"), Conflict), (StorageError("away"), StorageError), (ValueError("a bug"), JournalBroken)],
    ids=["taken over", "away", "a bug"],
)
async def test_what_a_journal_fails_with_tells_whether_to_try_again(raised: Exception, told: type[Exception]) -> None:
    """Whoever waits for a write learns whether the database is away, the batch is another's, or there is a bug."""

    class Failing:
        async def keep(self, *_: object, **__: object) -> Batch:
            raise raised

    async with writing(Failing(), replace(QUICK, storage_patience_s=0.0)) as ledger:  # type: ignore[arg-type]
        await ledger.line_ended(LineResult(1, "r", 200, body={}))
        with pytest.raises(told, match=str(raised)):
            await ledger.flush()
