"""Traces are written behind the requests' backs; the sink never waits and never raises."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from domain.cascade import CascadeRule
from domain.chat import Usage
from domain.errors import NotFound
from domain.plan import CallRole
from domain.routing import RoutingDecision, ScoredExpert
from domain.skills import SkillMatch
from domain.trace import CallRecord, Timings, Trace
from experts_registry import trace_rows
from experts_registry.database import Database
from experts_registry.traces import TraceStore
from orchestrator.ports import TraceSink
from tests.fakes.registry import said_in_log

SOON_S = 20.0
"""Longest wait for what happens within milliseconds on an idle machine."""

FULL = Trace(
    id="t-full",
    request_id="r-full",
    model="auto",
    strategy="auto",
    started_at=1_700_000_000.25,
    status="ok",
    decision=RoutingDecision(
        router="skills",
        selected=("numerals",),
        considered=(ScoredExpert("numerals", 0.9, selected=True, why="measured"), ScoredExpert("text", 0.1, selected=False)),
        reason="roman numerals",
        skills=(SkillMatch("roman numerals", 0.8, 1.0),),
        category="numerals",
        detail={"neighbours": [{"id": "q1", "similarity": 0.8}], "floor": None},
    ),
    calls=(CallRecord("numerals", CallRole.CANDIDATE, "ok", 12.5, Usage(10, 3), text="1994"),),
    aggregator="single",
    aggregator_reason="one expert was asked",
    timings=Timings(1.0, 12.5, 0.0, 14.0, 1.5, first_token=9.0),
    usage=Usage(10, 3),
    stream=True,
    session_id="s1",
    messages=({"role": "user", "content": "Write MCMXCIV 🏛"},),
    answer="1994",
)


def _trace(request_id: str, **changes: Any) -> Trace:
    """A trace whose id is the request's, unless another one is given."""
    return replace(Trace(request_id, model="auto", strategy=None, started_at=0.0, status="ok", id=request_id), **changes)


def _call(expert_id: str) -> CallRecord:
    return CallRecord(expert_id, CallRole.CANDIDATE, "ok", 1.0)


async def _written(store: TraceStore, *traces: Trace) -> None:
    for trace in traces:
        store.emit(trace)
    async with asyncio.timeout(SOON_S):
        await store.flush()


@pytest.fixture(name="store")
async def _store(database: Database) -> AsyncIterator[TraceStore]:
    store = TraceStore(database, first_retry_s=0.01)
    await store.start()
    yield store
    await store.close()


async def test_a_trace_comes_back_as_it_went_in(store: TraceStore) -> None:
    sink: TraceSink = store
    sink.emit(FULL)
    async with asyncio.timeout(SOON_S):
        await store.flush()

    assert await store.get("t-full") == FULL


async def test_traces_are_listed_newest_first_in_pages(store: TraceStore) -> None:
    """Of equal times too, no trace comes twice or is left out."""
    await _written(store, *(_trace(f"r{number}", started_at=float(number // 2)) for number in range(7)))
    pages = []
    after = None
    while page := await store.list(limit=3, after=after):
        pages.append([trace.request_id for trace in page])
        after = page[-1].request_id

    assert pages == [["r6", "r5", "r4"], ["r3", "r2", "r1"], ["r0"]]


async def test_traces_are_found_by_each_filter(store: TraceStore) -> None:
    await _written(
        store,
        _trace("r1", started_at=1.0, calls=(_call("a"), _call("b"), _call("a"))),
        _trace("r2", started_at=2.0, model="a", calls=(_call("a"),)),
        _trace("r3", started_at=3.0, strategy="panel", status="error"),
    )

    async def found(**filters: Any) -> list[str]:
        return [trace.request_id for trace in await store.list(**filters)]

    assert await found(expert_id="a") == ["r2", "r1"]
    assert await found(expert_id="b") == ["r1"]
    assert await found(model="a") == ["r2"]
    assert await found(strategy="panel") == ["r3"]
    assert await found(status="error") == ["r3"]
    assert await found(since=2.0) == ["r3", "r2"]
    assert await found(until=2.0) == ["r1"]
    assert await found(expert_id="a", since=2.0, until=3.0) == ["r2"]
    assert await found(expert_id="unknown") == []


async def test_an_unknown_trace_is_told(store: TraceStore) -> None:
    with pytest.raises(NotFound, match="no trace 'r9'"):
        await store.get("r9")
    with pytest.raises(NotFound, match="no trace 'r9'"):
        await store.list(after="r9")


async def test_one_trace_is_forgotten(store: TraceStore) -> None:
    await _written(store, _trace("r1", calls=(_call("a"),)), _trace("r2"))
    await store.delete("r1")

    assert [trace.request_id for trace in await store.list()] == ["r2"]
    with pytest.raises(NotFound, match="no trace 'r1'"):
        await store.delete("r1")


async def test_old_traces_are_forgotten(store: TraceStore, database: Database) -> None:
    await _written(store, _trace("old", started_at=1.0, calls=(_call("a"),)), _trace("new", started_at=2.0, calls=(_call("a"),)))

    assert await store.delete_before(2.0) == 1
    assert [trace.request_id for trace in await store.list()] == ["new"]
    async with database.reading() as connection:
        assert await connection.scalar(sa.text("SELECT count(*) FROM trace_experts")) == 1


async def test_old_traces_are_forgotten_in_short_transactions(
    store: TraceStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None holds the database for long."""
    monkeypatch.setattr("experts_registry.traces._MAX_DELETED", 2)
    await _written(store, *(_trace(f"r{number}", started_at=float(number), calls=(_call("x"),)) for number in range(6)))
    sizes: list[int] = []

    def executed(*arguments: Any) -> None:
        if arguments[2].startswith("DELETE FROM traces "):
            sizes.append(arguments[1].rowcount)

    event.listen(database.engine.sync_engine, "after_cursor_execute", executed)

    assert await store.delete_before(5.0) == 5
    assert sizes == [2, 2, 1]
    assert [trace.request_id for trace in await store.list()] == ["r5"]
    assert await store.delete_before(5.0) == 0


async def test_a_request_id_that_comes_again_loses_no_trace(store: TraceStore) -> None:
    """Clients choose request ids, so they may repeat: within a batch and later."""
    calls = (_call("a"),)
    await _written(store, _trace("r1", id="1", answer="first"), _trace("r1", id="2", answer="second", calls=calls))
    await _written(store, _trace("r1", id="3", answer="third", calls=calls), _trace("r2", answer="another"))

    assert [trace.answer for trace in await store.list(request_id="r1")] == ["third", "second", "first"]
    assert [trace.answer for trace in await store.list(request_id="r1", expert_id="a", limit=1, after="3")] == ["second"]


async def test_what_is_written_again_stands_once(store: TraceStore) -> None:
    """A write may have succeeded although it was told to have failed."""
    await _written(store, _trace("r1", calls=(_call("a"),)))
    await _written(store, _trace("r1", calls=(_call("a"),)), _trace("r1", answer="later"))

    assert [trace.answer for trace in await store.list()] == ["later"]


def test_no_two_traces_have_one_id() -> None:
    first, second = (Trace("r1", model="auto", strategy=None, started_at=0.0, status="ok") for _ in range(2))

    assert len({first.id, second.id, "r1"}) == 3


async def test_what_a_client_sends_never_keeps_a_trace_from_being_written(store: TraceStore) -> None:
    """NUL characters, half surrogate pairs, NaN, endless names, deep nesting."""
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    awkward = _trace(
        "r\0\ud800",
        model="m" * 10_000 + "\0",
        messages=({"role": "user", "content": "\0\ud800", "x": float("nan"), "y": nested, 3: object()},),  # type: ignore[dict-item]
        decision=RoutingDecision("skills", (), (), detail={"z": float("inf"), "big": 10**30}),
    )
    await _written(store, _trace("plain"), awkward)

    assert store.num_dropped == 0
    assert {trace.request_id for trace in await store.list()} == {"plain", "r\0\ud800"}


async def test_while_the_database_is_down_traces_wait_and_are_written_later(
    store: TraceStore, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with database.session() as connection:
        await connection.execute(sa.text("ALTER TABLE trace_experts RENAME TO mislaid"))
    with said_in_log("experts_registry.traces", "they wait in memory") as said:
        store.emit(_trace("r1", calls=(_call("a"),)))
        store.emit(_trace("r2"))
        async with asyncio.timeout(SOON_S):
            await said.wait()
    async with database.session() as connection:
        await connection.execute(sa.text("ALTER TABLE mislaid RENAME TO trace_experts"))
    async with asyncio.timeout(SOON_S):
        await store.flush()

    assert [trace.request_id for trace in await store.list()] == ["r2", "r1"]
    assert store.num_dropped == 0
    assert caplog.text.count("they wait in memory") == 1


async def test_a_full_queue_drops_the_oldest_and_counts_them(database: Database) -> None:
    store = TraceStore(database, max_queued=3)
    for number in range(5):
        store.emit(_trace(f"r{number}"))
    assert (store.num_queued, store.num_dropped) == (3, 2)
    await store.start()
    async with asyncio.timeout(SOON_S):
        await store.flush()
    await store.close()

    assert [trace.request_id for trace in await store.list()] == ["r4", "r3", "r2"]


async def test_closing_writes_what_waits(database: Database) -> None:
    store = TraceStore(database)
    await store.start()
    for number in range(450):
        store.emit(_trace(f"r{number}"))
    await store.close()

    assert len(await store.list(limit=1000)) == 450


async def test_closing_does_not_wait_for_a_database_that_is_down(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    async with database.session() as connection:
        await connection.execute(sa.text("ALTER TABLE traces RENAME TO mislaid"))
    store = TraceStore(database, close_timeout_s=0.05)
    await store.start()
    store.emit(_trace("r1"))
    async with asyncio.timeout(SOON_S):
        await store.close()
    async with database.session() as connection:
        await connection.execute(sa.text("ALTER TABLE mislaid RENAME TO traces"))

    assert store.num_dropped == 1
    assert "1 traces could not be written before the end" in caplog.text


async def test_what_waits_is_bounded_in_bytes_too(database: Database) -> None:
    """A few long conversations cannot fill the memory while the database is away."""
    store = TraceStore(database, max_queued_bytes=100_000)
    for number in range(5):
        store.emit(_trace(f"r{number}", messages=({"role": "user", "content": "x" * 40_000},)))
    assert (store.num_queued, store.num_dropped) == (2, 3)
    await store.start()
    await store.close()

    assert [trace.request_id for trace in await store.list()] == ["r4", "r3"]


async def test_a_trace_keeps_the_best_of_many_considered_experts(store: TraceStore) -> None:
    """Those that were selected, and the best others; how many there were is told."""
    considered = tuple(ScoredExpert(f"e{number}", number / 1000, selected=number in {0, 7}) for number in range(400))
    decision = RoutingDecision("skills", ("e7", "e0"), considered, detail={"floor": 0.3})
    await _written(store, _trace("r1", decision=decision))

    kept = (await store.get("r1")).decision
    assert kept is not None
    assert [expert.expert_id for expert in kept.considered] == ["e0", "e7", *(f"e{number}" for number in range(352, 400))]
    assert kept.detail == {"floor": 0.3, "num_considered": 400}


@pytest.mark.parametrize("num_considered", [1000, 30])
@pytest.mark.parametrize("is_deferred", [False, True])
async def test_the_detail_of_a_trace_is_bounded_as_the_considered_experts_are(
    store: TraceStore, database: Database, is_deferred: bool, num_considered: int
) -> None:
    """What a router tells of each of a thousand experts it keeps of those that are kept, however few were eligible; 200 kB otherwise."""
    ids = [f"expert-{number}" for number in range(1000)]
    considered = tuple(ScoredExpert(name, place / 1000, selected=place == 3) for place, name in enumerate(ids[:num_considered]))
    detail = {
        "means": dict.fromkeys(ids, 0.5),
        "neighbours": [{"question": "q", "scores": dict.fromkeys(ids, 1.0)} for _ in range(8)],
        "kept": ids,
    }
    decision = RoutingDecision("neighbours", ("expert-3",), considered)
    decision = decision.detailed_by(lambda: detail) if is_deferred else replace(decision, detail=detail)
    await _written(store, _trace("r1", decision=decision))

    kept = (await store.get("r1")).decision
    assert kept is not None
    names = [expert.expert_id for expert in kept.considered]
    assert list(kept.detail["means"]) == list(kept.detail["neighbours"][7]["scores"])
    assert len(kept.detail["means"]) == 50
    assert set(names) <= set(kept.detail["means"])
    assert kept.detail.get("num_considered", num_considered) == num_considered
    async with database.reading() as connection:
        (document,) = (await connection.scalars(sa.text("SELECT CAST(document AS TEXT) FROM traces"))).all()
    assert len(document) < 30_000


def test_the_size_of_a_trace_counts_what_its_router_tells_of_it() -> None:
    detail = {"neighbours": [{"question": "x" * 100, "scores": dict.fromkeys((f"expert-{n}" for n in range(40)), 0.5)} for _ in range(8)]}
    trace = _trace("r1", decision=RoutingDecision("neighbours", ("a",), detail=detail))

    assert trace_rows.size_of(trace) >= len(json.dumps(detail))


async def test_a_detail_is_made_when_its_trace_is_written_and_beside_the_event_loop(store: TraceStore) -> None:
    threads: list[int] = []

    def detail() -> dict[str, Any]:
        threads.append(threading.get_ident())
        return {"floor": 0.3}

    decision = RoutingDecision("neighbours", ("a",), (ScoredExpert("a", 1.0, selected=True),), vector=b"1234").detailed_by(detail)
    trace = _trace("r1", decision=decision)
    store.emit(trace)
    assert threads == []
    await _written(store)

    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    kept = (await store.get("r1")).decision
    assert kept is not None
    assert kept.detail == {"floor": 0.3}


async def test_of_many_considered_experts_only_the_kept_ones_are_put_into_words(store: TraceStore) -> None:
    """And what is stored has the words."""
    told: list[str] = []

    def considered(number: int) -> ScoredExpert:
        def why() -> str:
            told.append(f"e{number}")
            return f"measured {number}"

        return ScoredExpert.explained_by(f"e{number}", number / 1000, number == 7, why)

    await _written(store, _trace("r1", decision=RoutingDecision("skills", ("e7",), tuple(map(considered, range(400))))))

    kept = (await store.get("r1")).decision
    assert kept is not None
    assert kept.considered[:2] == (ScoredExpert("e7", 0.007, True, "measured 7"), ScoredExpert("e351", 0.351, False, "measured 351"))
    assert sorted(told) == sorted(expert.expert_id for expert in kept.considered)


async def test_traces_become_json_beside_the_event_loop(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither turning a trace into a row nor into text happens in the thread that serves requests."""
    threads: set[int] = set()

    def watched(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            threads.add(threading.get_ident())
            return function(*arguments, **options)

        return call

    monkeypatch.setattr("experts_registry.trace_rows.to_row", watched(trace_rows.to_row))
    monkeypatch.setattr(json, "dumps", watched(json.dumps))
    await _written(store, FULL)

    assert threads
    assert threading.get_ident() not in threads


async def test_what_comes_within_a_moment_is_written_together(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction for each would cost more than all else that is done for a request; who waits for them need not wait longer."""
    sizes: list[int] = []

    def write(connection: Any, batch: Any, vectors: Any, *, is_new: bool) -> set[str]:
        sizes.append(len(batch))
        return set()

    monkeypatch.setattr(trace_rows, "write", write)
    store = TraceStore(database, gather_s=SOON_S)
    await store.start()
    for number in range(5):
        store.emit(_trace(f"r{number}"))
        await asyncio.sleep(0)
    assert sizes == []
    async with asyncio.timeout(SOON_S / 2):
        await store.flush()
    assert sizes == [5]

    for number in range(1100):
        store.emit(_trace(f"s{number}"))
    async with asyncio.timeout(SOON_S / 2):  # as many as one transaction takes do not wait for more
        while sum(sizes) < 5 + 1000:
            await asyncio.sleep(0.01)
    await store.close()


async def test_large_traces_do_not_wait_for_more_of_them(database: Database) -> None:
    """As many as one transaction takes by their size leave at once, however few they are; else they would fill the queue."""
    store = TraceStore(database, gather_s=SOON_S)
    await store.start()
    for number in range(150):
        store.emit(_trace(f"r{number}", messages=({"role": "user", "content": "x" * 100_000},)))
    async with asyncio.timeout(SOON_S / 2):
        while store.num_queued > 50:
            await asyncio.sleep(0.01)
    await store.close()

    assert store.num_dropped == 0
    assert len(await store.list(limit=1000)) == 150


async def test_a_number_that_no_database_can_hold_costs_one_trace(store: TraceStore) -> None:
    absurd = _trace("absurd", usage=Usage(2**63, 1), calls=(replace(_call("a"), usage=Usage(2**63, 1)),))
    await _written(store, _trace("r1"), absurd, _trace("r2"))

    assert {trace.request_id for trace in await store.list()} == {"r1", "r2"}
    assert store.num_dropped == 1


async def test_what_was_written_while_the_service_ended_is_not_told_as_lost(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Database.made_and_written

    async def slowly(*arguments: Any) -> None:
        await write(*arguments)
        await asyncio.sleep(0.3)

    monkeypatch.setattr(Database, "made_and_written", slowly)
    store = TraceStore(database, close_timeout_s=0.05)
    await store.start()
    store.emit(_trace("r1"))
    await store.close()

    assert store.num_dropped == 0
    assert "could not be written" not in caplog.text
    assert [trace.request_id for trace in await store.list()] == ["r1"]


@pytest.mark.parametrize("num", [1, 203, 1030])
async def test_every_trace_of_a_large_batch_is_there_with_its_calls(store: TraceStore, num: int) -> None:
    """Rows go into the database many at a time, in pieces of several sizes; whether they were made at once or later."""
    two = tuple(ScoredExpert(name, 0.5, selected=name == "a") for name in "ab")
    routed = RoutingDecision("skills", ("a",), two, vector=b"12")
    named = RoutingDecision("skills", ("a",), two[:1])
    calls = (_call("a"), _call("b"))
    made = (_trace(f"r{n}", decision=routed if n % 3 else named, calls=calls[: 1 + n % 2], model=f"m{n}") for n in range(num))
    await _written(store, *made)

    kept = {trace.id: trace for trace in await store.list(limit=num + 1)}
    assert {trace_id: trace.model for trace_id, trace in kept.items()} == {f"r{n}": f"m{n}" for n in range(num)}
    assert len(await store.list(expert_id="b", limit=num + 1)) == num // 2
    assert store.num_dropped == 0


@pytest.mark.parametrize("value", [float("nan"), "\ud800", object(), 2**70, {"a\0": {1, 2}}, [[[]]]])
async def test_what_is_no_json_is_kept_as_far_as_it_can_be(store: TraceStore, value: Any) -> None:
    decision = RoutingDecision(router="skills", selected=("a",), detail={"value": value, "floor": 0.5})
    await _written(store, _trace("r1", decision=decision))

    kept = (await store.get("r1")).decision
    assert kept is not None
    assert kept.detail["floor"] == 0.5


async def test_a_cascade_comes_back_as_it_was(database: Database) -> None:
    """Whose turn each call was, how sure the answer, what became of it, and by which rule."""
    call = CallRecord("a", CallRole.CANDIDATE, "ok", 1.0, stage=1, confidence=0.42, note="below 0.5, so the next expert was asked")
    decision = RoutingDecision("cascade", ("a", "b"), cascade=CascadeRule("judge", 0.5, judge_expert="c"))
    store = TraceStore(database)
    await store.start()
    trace = _trace("r", calls=(call,), decision=decision, answered_by="b")
    await _written(store, trace)

    assert await store.get("r") == trace
    await store.close()
