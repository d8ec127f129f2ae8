"""The log of feedback, and the vectors of what was routed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from domain.errors import Conflict, NotFound
from domain.feedback import Feedback
from domain.routing import RoutingDecision
from domain.trace import Trace
from experts_registry.database import Database
from experts_registry.feedback import MAX_PER_TRACE, FeedbackStore
from experts_registry.traces import TraceStore


def said(name: str, **changes: Any) -> Feedback:
    made = Feedback(
        name, f"r-{name}", f"t-{name}", 10.0, {"correct": True}, {"a": 1.0, "b": 0.0}, {"a": 0.75}, "a", "auto", "skills",
        (("addition", 0.75), ("units", 0.25)), "maths", None, b"\x00\x3c", "encoder@1",
    )  # fmt: skip
    return replace(made, **changes)


@pytest.fixture(name="store")
async def _store(database: Database) -> FeedbackStore:
    return FeedbackStore(database, now=lambda: 99.0)


async def test_what_was_kept_comes_back_as_it_was(store: FeedbackStore) -> None:
    kept = await store.add(said("x"))
    bare = await store.add(Feedback("reset-a", "reset-a", "", 11.0, {"reset": "a"}, resets="a"))

    assert kept == said("x", sequence=1)
    assert await store.get("x") == kept
    assert await store.get("reset-a") == bare
    assert await store.newest(10) == (2, [kept, bare])


async def test_the_same_again_is_one_and_something_else_is_refused(store: FeedbackStore) -> None:
    first = await store.add(said("x"))
    again = await store.add(said("x", created_at=50.0))

    assert again == first
    assert await store.version() == 1
    with pytest.raises(Conflict, match="something else was said"):
        await store.add(said("x", given={"correct": False}))


async def test_a_rollback_is_kept_and_told_to_who_follows(store: FeedbackStore) -> None:
    await store.add(said("x"))
    await store.add(said("y"))
    version, _ = await store.newest(10)
    taken_back = await store.roll_back("x")

    assert (taken_back.counts, taken_back.rolled_back_at) == (False, 99.0)
    assert await store.roll_back("x") == taken_back
    assert await store.since(version) == (3, [taken_back])
    assert [event.id for event in (await store.newest(10))[1]] == ["y"]
    with pytest.raises(NotFound):
        await store.roll_back("z")


async def test_events_have_one_order_however_many_write_at_once(store: FeedbackStore, other_process: Database) -> None:
    stores = (store, FeedbackStore(other_process))
    await asyncio.gather(*(stores[number % 2].add(said(str(number))) for number in range(20)))
    _, events = await store.newest(50)

    assert [event.sequence for event in events] == list(range(1, 21))


async def test_enough_is_enough_for_one_request(store: FeedbackStore) -> None:
    for number in range(MAX_PER_TRACE):
        await store.add(said(f"x-{number}", trace_id="t"))
    with pytest.raises(Conflict, match="no more are taken"):
        await store.add(said("one more", trace_id="t"))


async def test_lists_are_filtered_and_go_on_where_they_stopped(store: FeedbackStore) -> None:
    for number in range(4):
        await store.add(said(str(number), scores={"a" if number % 2 else "b": 1.0}))
    await store.roll_back("3")

    newest = await store.list(limit=2)
    assert [event.id for event in newest] == ["3", "2"]
    assert [event.id for event in await store.list(before=newest[-1].sequence)] == ["1", "0"]
    assert [event.id for event in await store.list(expert_id="a")] == ["3", "1"]
    assert [event.id for event in await store.list(expert_id="a", rolled_back=False)] == ["1"]
    assert [event.id for event in await store.list(request_id="r-2")] == ["2"]


async def test_old_feedback_is_forgotten_and_the_log_does_not_go_back(store: FeedbackStore) -> None:
    await store.add(said("old", created_at=1.0))
    await store.add(said("older", created_at=0.5))

    assert await store.delete_before(5.0) == 1
    assert await store.version() == 2, "the newest stays, since who follows has read up to it"
    assert (await store.add(said("new"))).sequence == 3
    assert await store.delete_before(5.0) == 1
    with pytest.raises(NotFound):
        await store.get("old")


def traced(name: str, vector: bytes | None, **changes: Any) -> Trace:
    decision = RoutingDecision("skills", ("a",), vector=vector)
    return Trace(
        **{"request_id": name, "model": "auto", "strategy": "auto", "started_at": 1.0, "status": "ok", "decision": decision} | changes
    )


async def test_what_was_routed_is_kept_beside_its_trace_and_goes_with_it(database: Database) -> None:
    traces = TraceStore(database, encoder_id=lambda: "encoder@1")
    await traces.start()
    traces.emit(traced("x", b"\x00\x3c", id="t1"))
    traces.emit(traced("y", None, id="t2"))
    await traces.flush()

    found = await traces.get("t1")
    assert found.decision is not None
    assert found.decision.vector is None, "the trace itself does not show it"
    assert await traces.vector("t1") == ("encoder@1", b"\x00\x3c")
    assert await traces.vector("t2") is None
    await traces.delete("t1")
    assert await traces.vector("t1") is None
    await traces.close()


async def test_without_feedback_no_vector_is_kept(database: Database) -> None:
    traces = TraceStore(database)
    await traces.start()
    traces.emit(traced("x", b"\x00\x3c", id="t1"))
    await traces.flush()

    assert await traces.vector("t1") is None
    await traces.close()


async def test_the_newest_trace_of_a_request_is_waited_for(database: Database) -> None:
    """Callers choose request ids, so one may come again; and an answer is there before its trace is written."""
    traces = TraceStore(database)
    await traces.start()
    traces.emit(traced("x", None, id="t1", started_at=1.0))
    traces.emit(traced("x", None, id="t2", started_at=2.0))

    assert (await traces.newest("x")).id == "t2"
    with pytest.raises(NotFound, match="no trace of a request 'z'"):
        await traces.newest("z")
    await traces.close()


async def test_the_trace_of_another_process_is_waited_for(database: Database) -> None:
    """Of several processes of one service, the one that is told of an answer need not be the one that has given it."""
    told, answered = TraceStore(database), TraceStore(database)
    await told.start()
    await answered.start()
    answered.emit(traced("x", None, id="t1"))

    assert (await told.newest("x")).id == "t1"
    await told.close()
    await answered.close()
