"""Batches in the database: claims, what is kept of each line, and that nothing is counted twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from domain.batch import (
    Batch,
    BatchError,
    BatchErrorCode,
    BatchLine,
    BatchOptions,
    BatchRunner,
    BatchState,
    InputLine,
    KeptCall,
    LineResult,
    LineRoute,
    RequestCounts,
)
from domain.chat import Choice, Usage
from domain.errors import Conflict, NotFound, StorageError
from domain.plan import Candidate, ExpertFailure
from domain.skills import SkillMatch
from experts_registry.batch_journal import PAGE, RESULT_PAGE, DatabaseJournal
from experts_registry.batches import BatchStore
from experts_registry.database import Database
from experts_registry.files import FileStore
from experts_registry.tables import batch_calls, batch_lines
from orchestrator.batch import ports

T = TypeVar("T")
ROUTE = LineRoute("skills", ("a", "b"), (0.5, 0.25), "judge", "auto", "measured", (SkillMatch("algebra", 0.5, 1.0),), "maths")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def make_batch(batch_id: str = "batch_1", **changes: Any) -> Batch:
    batch = Batch("", "/v1/chat/completions", "in.jsonl", BatchState.VALIDATING, 100.0, 900.0, runner=BatchRunner.COMMAND)
    return replace(batch, id=batch_id, **{"entered": {BatchState.VALIDATING: 100.0}, **changes})


def line(number: int) -> InputLine:
    return InputLine(BatchLine(number, f"id-{number}"), number * 100, 100)


def candidate(expert: str = "a", prompt: int = 10, completion: int = 5) -> Candidate:
    return Candidate(expert, (Choice({"role": "assistant", "content": "4"}),), Usage(prompt, completion, {"cached": 1}))


def failure(expert: str = "a") -> ExpertFailure:
    return ExpertFailure(expert, "expert_timeout", "no answer within 3 s \ud800")


def answered(number: int, prompt: int = 10, completion: int = 5, **more: Any) -> LineResult:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}
    return LineResult(number, f"r-{number}", 200, {"choices": [{"message": {"content": "4 \0 \ud800"}}], "usage": usage})


def failed(number: int) -> LineResult:
    return LineResult(number, f"r-{number}", 502, error={"code": "all_experts_failed", "message": "every expert failed"})


async def everything(found: AsyncIterator[T]) -> list[T]:
    return [item async for item in found]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database: Database, clock: Clock) -> BatchStore:
    return BatchStore(database, now=clock)


async def begun(
    store: BatchStore, lines: Sequence[int] = (), owner: str = "me", batch_id: str = "batch_1", **changes: Any
) -> DatabaseJournal:
    """A batch that "me" works on, with *lines*."""
    await store.create(make_batch(batch_id))
    claimed = await store.claim("me", lease_s=60, runner=BatchRunner.COMMAND)
    assert claimed is not None
    journal = store.journal(claimed.id, "me")
    await journal.keep_lines([line(number) for number in lines])
    return journal


def test_the_store_is_what_the_engine_asks_for(store: BatchStore) -> None:
    """Checked by mypy where tests are checked; here by name."""
    as_port: ports.BatchStore = store
    as_journal: ports.BatchJournal = store.journal("batch_1", "me")

    assert as_port
    assert as_journal


async def test_a_batch_comes_back_as_it_was(store: BatchStore) -> None:
    batch = make_batch(
        window="3h",
        options=BatchOptions("panel", 10, 5000),
        metadata={"for": "José 🏛 \0 \ud800"},
        entered={BatchState.VALIDATING: 100.5},
        counts=RequestCounts(5, 3, 1),
        usage=Usage(7, 8, {"prompt_tokens_details": {"cached_tokens": 3}}),
        num_calls=9,
        errors=(BatchError(BatchErrorCode.INVALID_JSON_LINE, "no JSON", 3, "body"), BatchError("x", "y")),
        output_file_id="file-out",
        error_file_id="file-err",
    )

    assert await store.create(batch) == batch
    assert await store.get("batch_1") == batch


async def test_an_unknown_batch_is_not_found_and_a_known_id_is_taken(store: BatchStore) -> None:
    with pytest.raises(NotFound, match="there is no batch 'batch_9'"):
        await store.get("batch_9")
    await store.create(make_batch())
    with pytest.raises(Conflict, match="taken"):
        await store.create(make_batch())


async def test_a_services_batch_needs_its_input_file(store: BatchStore) -> None:
    with pytest.raises(NotFound, match="there is no file 'file-9': upload it") as caught:
        await store.create(make_batch(runner=BatchRunner.SERVICE, input_file_id="file-9"))

    assert caught.value.param == "input_file_id"


async def test_batches_are_listed_newest_first_by_pages(store: BatchStore) -> None:
    for number, moment in enumerate([10.0, 30.0, 20.0, 20.0]):
        await store.create(make_batch(f"batch_{number}", created_at=moment))

    assert [batch.id for batch in await store.list()] == ["batch_1", "batch_3", "batch_2", "batch_0"]
    assert [batch.id for batch in await store.list(limit=2)] == ["batch_1", "batch_3"]
    assert [batch.id for batch in await store.list(limit=2, after="batch_3")] == ["batch_2", "batch_0"]
    with pytest.raises(NotFound) as caught:
        await store.list(after="batch_9")
    assert caught.value.param == "after"


async def test_what_was_routed_is_kept_until_the_line_is_over(store: BatchStore, database: Database) -> None:
    journal = await begun(store, [1, 2])
    routed = replace(ROUTE, vector=b"\x00\x3c\xff", encoder_id="minilm")
    await journal.keep_routes([(1, routed), (2, ROUTE)])
    pending = {found.input.line.number: found.route for found in await everything(journal.pending())}
    await journal.keep((), [answered(1)], num_calls=1)
    async with database.reading() as connection:
        rows = (await connection.execute(sa.select(batch_lines.c.number, batch_lines.c.vector, batch_lines.c.encoder_id))).all()

    assert pending == {1: routed, 2: ROUTE}
    assert sorted(map(tuple, rows)) == [(1, None, None), (2, None, None)]


# --- whose it is ----------------------------------------------------------------------------------------------------


async def test_the_oldest_batch_of_the_asked_kind_is_claimed(store: BatchStore) -> None:
    await store.create(make_batch("batch_new", created_at=20.0))
    await store.create(make_batch("batch_old", created_at=10.0))
    await store.create(make_batch("batch_over", created_at=5.0, state=BatchState.COMPLETED))

    assert await store.claim("me", lease_s=60, runner=BatchRunner.SERVICE) is None
    claimed = [await store.claim("me", lease_s=60, runner=BatchRunner.COMMAND) for _ in range(3)]

    assert [batch.id if batch else None for batch in claimed] == ["batch_old", "batch_new", None]


async def test_batches_can_be_passed_over_and_those_that_only_have_to_end_be_asked_for(store: BatchStore, clock: Clock) -> None:
    for number, changes in enumerate([{}, {"expires_at": 1500.0}, {"state": BatchState.CANCELLING}]):
        await store.create(make_batch(f"batch_{number}", created_at=number, **{"expires_at": 9000.0, **changes}))

    async def claimed(**which: Any) -> str | None:
        batch = await store.claim("me", lease_s=1e6, runner=BatchRunner.COMMAND, **which)
        return None if batch is None else batch.id

    assert await claimed(besides={"batch_2"}, ending=True) is None
    assert await claimed(ending=True) == "batch_2"
    clock.now = 1500.0
    assert await claimed(ending=True) == "batch_1"
    assert await claimed(besides=("batch_0",)) is None
    assert await claimed() == "batch_0"


async def test_a_batch_is_undelivered_until_its_files_are_gone(store: BatchStore, database: Database, tmp_path: Path) -> None:
    """Whether it is over or not; one of another kind never is."""
    kept = FileStore(database, tmp_path / "files")

    async def no_lines() -> AsyncIterator[bytes]:
        yield b"{}"

    errors = (await kept.write("errors.jsonl", no_lines())).id
    await store.create(make_batch("batch_begun", created_at=2.0))
    await store.create(make_batch("batch_done", created_at=1.0, state=BatchState.COMPLETED, error_file_id=errors))
    await store.create(make_batch("batch_fetched", created_at=0.0, state=BatchState.COMPLETED, output_file_id="file-gone"))

    async def undelivered(runner: BatchRunner) -> list[str]:
        return [batch.id for batch in await store.undelivered(runner)]

    assert await undelivered(BatchRunner.COMMAND) == ["batch_done", "batch_begun"]
    assert await undelivered(BatchRunner.SERVICE) == []
    await kept.delete(errors)
    assert await undelivered(BatchRunner.COMMAND) == ["batch_begun"]


async def test_many_that_claim_at_once_get_one_each(store: BatchStore, other_process: Database, clock: Clock) -> None:
    for number in range(6):
        await store.create(make_batch(f"batch_{number}", created_at=number))
    elsewhere = BatchStore(other_process, now=clock)

    async def claim_all(at: BatchStore, owner: str) -> list[str]:
        found = []
        while (batch := await at.claim(owner, lease_s=60, runner=BatchRunner.COMMAND)) is not None:
            found.append(batch.id)
        return found

    got = await asyncio.gather(*(claim_all(at, f"p{i}") for i, at in enumerate([store, elsewhere, store, elsewhere])))
    rest = await claim_all(store, "late")  # one may be passed over while another process looks at it

    assert sorted([batch_id for ids in [*got, rest] for batch_id in ids]) == [f"batch_{number}" for number in range(6)]


async def test_a_lease_runs_out_unless_it_is_renewed(store: BatchStore, clock: Clock) -> None:
    await begun(store)
    clock.now += 50
    await store.renew("batch_1", "me", lease_s=60)
    clock.now += 50
    assert await store.claim("you", lease_s=60, runner=BatchRunner.COMMAND) is None
    clock.now += 20

    assert await store.claim("you", lease_s=60, runner=BatchRunner.COMMAND) is not None
    with pytest.raises(Conflict, match="taken it over"):
        await store.renew("batch_1", "me", lease_s=60)


async def test_a_lease_that_ran_out_is_still_good_while_nobody_took_the_batch(store: BatchStore, clock: Clock) -> None:
    await begun(store)
    clock.now += 1000

    assert (await store.renew("batch_1", "me", lease_s=60)).id == "batch_1"


async def test_who_was_replaced_can_change_nothing_any_more(store: BatchStore, clock: Clock) -> None:
    """Every write of one that was too slow is refused, and leaves no trace."""
    old = await begun(store, [1, 2])
    clock.now += 100
    await store.claim("you", lease_s=60, runner=BatchRunner.COMMAND)
    for write in (
        lambda: old.keep_lines([line(3)]),
        lambda: old.keep_routes([(1, ROUTE)]),
        lambda: old.keep([KeptCall(1, 0, candidate())], [answered(2)], num_calls=2),
        lambda: store.enter("batch_1", BatchState.IN_PROGRESS, owner="me"),
    ):
        with pytest.raises(Conflict, match="taken it over"):
            await write()
    await store.release("batch_1", "me")

    assert [found.route for found in await everything(store.journal("batch_1", "you").pending())] == [None, None]
    assert (await store.get("batch_1")).state is BatchState.VALIDATING
    assert (await store.renew("batch_1", "you", lease_s=60)).num_calls == 0


async def test_what_is_given_up_can_be_claimed_at_once(store: BatchStore) -> None:
    await begun(store)
    await store.release("batch_1", "me")

    assert await store.claim("you", lease_s=60, runner=BatchRunner.COMMAND) is not None


# --- states ---------------------------------------------------------------------------------------------------------


async def test_each_state_is_entered_with_its_moment_and_what_came_of_it(store: BatchStore, clock: Clock) -> None:
    await store.create(make_batch())
    await store.enter("batch_1", BatchState.IN_PROGRESS)
    clock.now = 2000.0
    await store.enter("batch_1", BatchState.FINALIZING)
    batch = await store.enter("batch_1", BatchState.COMPLETED, output_file_id="file-o", error_file_id="file-e")

    assert batch.entered == {
        BatchState.VALIDATING: 100.0,
        BatchState.IN_PROGRESS: 1000.0,
        BatchState.FINALIZING: 2000.0,
        BatchState.COMPLETED: 2000.0,
    }
    assert (batch.output_file_id, batch.error_file_id) == ("file-o", "file-e")
    with pytest.raises(Conflict, match="it is over"):
        await store.enter("batch_1", BatchState.FAILED)
    assert await store.enter("batch_1", BatchState.COMPLETED, output_file_id="file-other") == batch


async def test_a_refused_input_says_why(store: BatchStore) -> None:
    await store.create(make_batch())
    errors = (BatchError("invalid_json_line", "no JSON", 3),)

    assert (await store.enter("batch_1", BatchState.FAILED, errors=errors)).errors == errors


async def test_a_batch_that_runs_is_asked_to_cancel_once(store: BatchStore, clock: Clock) -> None:
    await store.create(make_batch())
    first = await store.cancel("batch_1")
    clock.now += 5

    assert first.state is BatchState.CANCELLING
    assert await store.cancel("batch_1") == first
    await store.enter("batch_1", BatchState.CANCELLED)
    with pytest.raises(Conflict, match="cannot be cancelled: it is cancelled already"):
        await store.cancel("batch_1")


async def test_a_batch_that_writes_its_files_is_not_cancelled(store: BatchStore) -> None:
    await store.create(make_batch(state=BatchState.FINALIZING))
    with pytest.raises(Conflict, match="its output files are being written"):
        await store.cancel("batch_1")


# --- lines ----------------------------------------------------------------------------------------------------------


async def test_lines_and_routes_come_back_by_number(store: BatchStore) -> None:
    journal = await begun(store, [3, 1])
    await journal.keep_routes([(3, ROUTE)])

    first, second = await everything(journal.pending())

    assert (first.input, first.route) == (line(1), None)
    assert (second.input, second.route) == (line(3), ROUTE)


async def test_lines_that_are_read_again_after_a_kill_stand_once(store: BatchStore) -> None:
    journal = await begun(store, [1, 2])
    await journal.keep_routes([(1, ROUTE)])
    await journal.keep_lines([line(1), line(2), line(3)])

    assert [found.route for found in await everything(journal.pending())] == [ROUTE, None, None]
    assert (await store.get("batch_1")).counts == RequestCounts(3)


async def test_what_is_kept_is_there_and_counted(store: BatchStore) -> None:
    journal = await begun(store, [1, 2, 3])
    batch = await journal.keep([KeptCall(3, 0, candidate()), KeptCall(3, 1, failure("b"))], [answered(1), failed(2)], num_calls=4)

    assert batch.counts == RequestCounts(3, 1, 1)
    assert batch.num_calls == 4
    assert await store.get("batch_1") == batch
    assert await everything(journal.settled()) == [(3, 0, True), (3, 1, False)]
    assert await journal.calls([3, 1]) == {3: {0: candidate(), 1: failure("b")}}
    assert await everything(journal.results(failed=False)) == [("id-1", answered(1))]
    assert await everything(journal.results(failed=True)) == [("id-2", failed(2))]
    assert [found.input.line.number for found in await everything(journal.pending())] == [3]


async def test_keeping_twice_is_keeping_once(store: BatchStore) -> None:
    """The answer to a commit was lost, so the same is kept again."""
    journal = await begun(store, [1, 2, 3])
    first = await journal.keep([KeptCall(3, 0, candidate())], [answered(1), failed(2)], num_calls=3)
    second = await journal.keep([KeptCall(3, 0, candidate())], [answered(1), failed(2)], num_calls=3)

    assert second == first


async def test_a_line_that_is_over_stays_as_it_is(store: BatchStore) -> None:
    journal = await begun(store, [1, 2])
    await journal.keep([], [answered(1)], num_calls=1)
    batch = await journal.keep([KeptCall(1, 0, candidate())], [failed(1), answered(2)], num_calls=1)

    assert batch.counts == RequestCounts(2, 2, 0)
    assert [result for _, result in await everything(journal.results(failed=False))] == [answered(1), answered(2)]
    assert await everything(journal.settled()) == []


async def test_the_calls_of_a_line_are_dropped_when_it_is_over(store: BatchStore, database: Database) -> None:
    journal = await begun(store, [1, 2])
    await journal.keep([KeptCall(1, 0, candidate()), KeptCall(2, 0, candidate())], [], num_calls=2)
    await journal.keep([KeptCall(1, 1, candidate("b"))], [answered(1)], num_calls=1)

    assert await everything(journal.settled()) == [(2, 0, True)]
    async with database.reading() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(batch_calls)) == 1


async def test_tokens_count_when_a_call_is_kept_and_once(store: BatchStore) -> None:
    """A budget sees them before the line is over; the line's answer then adds only what its kept calls have not told."""
    journal = await begun(store, [1, 2])
    batch = await journal.keep([KeptCall(1, 0, candidate()), KeptCall(1, 1, failure())], [], num_calls=2)
    assert batch.usage == Usage(10, 5)
    batch = await journal.keep([], [answered(1, 30, 11, prompt_tokens_details={"cached_tokens": 2})], num_calls=1)
    assert batch.usage == Usage(30, 11, {"prompt_tokens_details": {"cached_tokens": 2}})
    batch = await journal.keep([KeptCall(2, 0, candidate())], [failed(2)], num_calls=1)

    assert batch.usage == Usage(40, 16, {"prompt_tokens_details": {"cached_tokens": 2}})
    assert batch.num_calls == 4


async def test_what_is_kept_at_once_is_counted_whole(store: BatchStore, other_process: Database, clock: Clock) -> None:
    """Two connections, twenty writes: no count is lost to another."""
    await begun(store, range(1, 21))
    journals = [at.journal("batch_1", "me") for at in (store, BatchStore(other_process, now=clock))]
    await asyncio.gather(*(journals[n % 2].keep([], [answered(n)], num_calls=1) for n in range(1, 21)))
    batch = await store.get("batch_1")

    assert (batch.counts, batch.num_calls, batch.usage) == (RequestCounts(20, 20), 20, Usage(200, 100))


async def test_a_line_that_there_is_not_is_refused_as_a_whole(store: BatchStore) -> None:
    journal = await begun(store, [1])
    with pytest.raises(NotFound, match="no line 9"):
        await journal.keep([], [answered(1), answered(9)], num_calls=2)

    assert (await store.get("batch_1")).counts == RequestCounts(1)


async def test_pages_meet_without_gap_or_overlap(store: BatchStore) -> None:
    numbers = list(range(1, PAGE + 3))
    journal = await begun(store, numbers)
    calls = [KeptCall(number, position, failure()) for number in numbers[:600] for position in (0, 1)]
    await journal.keep(calls, [], num_calls=1)

    assert [found.input.line.number for found in await everything(journal.pending())] == numbers
    assert [(n, p) for n, p, _ in await everything(journal.settled())] == [(call.number, call.position) for call in calls]
    await journal.keep([], [answered(number) for number in numbers[: 2 * RESULT_PAGE + 1]], num_calls=1)
    assert [result.number for _, result in await everything(journal.results(failed=False))] == numbers[: 2 * RESULT_PAGE + 1]


async def test_lines_may_be_kept_while_they_are_read(store: BatchStore) -> None:
    """No transaction stays open between two lines."""
    journal = await begun(store, range(1, 6))
    seen = []
    async for found in journal.pending():
        seen.append(found.input.line.number)
        await journal.keep([], [answered(found.input.line.number)], num_calls=1)

    assert seen == [1, 2, 3, 4, 5]
    assert (await store.get("batch_1")).counts == RequestCounts(5, 5)


async def test_the_lines_of_batches_that_are_long_over_are_forgotten(store: BatchStore, database: Database, clock: Clock) -> None:
    for batch_id in ("batch_1", "batch_2"):
        journal = await begun(store, [1, 2], batch_id=batch_id)
        await journal.keep([KeptCall(2, 0, candidate())], [answered(1)], num_calls=2)
    await store.enter("batch_1", BatchState.FAILED)
    clock.now += 10

    assert await store.drop_lines_before(clock.now) == 1
    assert await store.drop_lines_before(clock.now) == 0
    async with database.reading() as connection:
        assert set((await connection.scalars(sa.select(batch_lines.c.batch_id))).all()) == {"batch_2"}
    assert (await store.get("batch_1")).counts == RequestCounts(2, 1)


async def test_a_locked_database_is_told_and_nothing_is_half_kept(store: BatchStore, other_process: Database, database_url: str) -> None:
    journal = await begun(store, [1, 2])
    impatient = Database.connect(database_url, busy_timeout_s=0.2)
    try:
        late = BatchStore(impatient).journal("batch_1", "me")
        async with other_process.session() as connection:
            await connection.execute(sa.text("UPDATE batches SET num_calls = num_calls"))
            with pytest.raises(StorageError, match="locked by another process"):
                await late.keep([KeptCall(2, 0, candidate())], [answered(1)], num_calls=1)
    finally:
        await impatient.close()

    assert (await journal.keep([KeptCall(2, 0, candidate())], [answered(1)], num_calls=1)).counts == RequestCounts(2, 1)
