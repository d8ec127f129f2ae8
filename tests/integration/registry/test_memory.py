"""The memory of solved problems: each tenant's own, one of each problem, bounded, and gone when it is deleted; on both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from domain.errors import InvalidRequest, NotFound
from domain.memory import SolvedProblem
from experts_registry.database import Database
from experts_registry.memory import MemoryStore
from experts_registry.tables import solved_problems, traces
from routers.problem_memory import ProblemMemory
from tests.fakes.encoder import HashingEncoder

ASKED = "A train covers 240 km in 4 hours. How fast is it?"


def solved(question: str = "A train covers 180 km in 3 hours. How fast is it?", **changes: Any) -> SolvedProblem:
    made = SolvedProblem("", "key-a", question, "60 km/h", "feedback", 10.0, ("rates",), "units", "t-1", "fb-1")
    return replace(made, **changes)


@pytest.fixture(name="store")
def _store(database: Database) -> MemoryStore:
    return MemoryStore(database, max_problems=3)


async def test_what_was_kept_comes_back_as_it_was(store: MemoryStore) -> None:
    (kept,) = await store.add([solved()])

    assert kept == solved(id=kept.id, sequence=kept.sequence)
    assert kept.id.startswith("mem-")
    assert await store.get(kept.id) == kept
    assert await store.of_tenant("key-a") == [kept]


async def test_a_tenant_has_only_what_is_its_own(store: MemoryStore) -> None:
    await store.add([solved(), solved(tenant="key-b"), solved("another one")])

    assert [one.question for one in await store.list(tenant="key-b")] == [solved().question]
    assert {one.tenant for one in await store.of_tenant("key-a")} == {"key-a"}
    assert await store.clear("key-a") == 2
    assert [one.tenant for one in await store.list()] == ["key-b"]


async def test_what_is_entered_by_hand_stays_when_feedback_that_had_let_it_in_is_taken_back(store: MemoryStore) -> None:
    (first,) = await store.add([solved()])
    (by_hand,) = await store.add([solved(source="import", feedback_id=None, trace_id=None)])
    (again,) = await store.add([solved(feedback_id="fb-2", trace_id="t-2")])

    assert by_hand == again == replace(first, source="import", feedback_id=None, trace_id=None)
    assert await store.forget(feedback_id="fb-1") + await store.forget(trace_id="t-1") + await store.forget(feedback_id="fb-2") == 0
    assert await store.list() == [by_hand]


async def test_processes_that_note_what_was_used_and_save_vectors_and_delete_do_not_hold_each_other_up(database: Database) -> None:
    store = MemoryStore(database)
    kept = [one.id for one in await store.add([solved(f"question {number}") for number in range(40)])]
    there, back = dict.fromkeys(kept, b"1"), dict.fromkeys(reversed(kept), b"2")

    for _ in range(5):
        await asyncio.gather(
            store.save_vectors("e", there),
            store.save_vectors("e", back),
            store.used(dict.fromkeys(kept, 1.0)),
            store.save_vectors("e", there),
        )
    assert await store.clear("key-a") == 40


async def test_one_problem_is_kept_once_with_the_answer_that_was_vouched_for_last(store: MemoryStore) -> None:
    (first,) = await store.add([solved()])
    (again,) = await store.add([solved(feedback_id="fb-2")])
    (other,) = await store.add([solved(f"  {solved().question.upper()} ", answer="60")])

    assert again == first
    assert [(one.id, one.answer) for one in await store.list()] == [(other.id, "60")]
    with pytest.raises(NotFound):
        await store.get(first.id)


async def test_where_one_more_comes_that_leaves_which_was_shown_longest_ago(store: MemoryStore) -> None:
    kept = await store.add([solved(f"problem {n}", created_at=float(n)) for n in range(3)])
    await store.used({kept[0].id: 100.0})
    await store.add([solved("problem 3", created_at=50.0), solved("of another tenant", tenant="key-b", created_at=0.0)])

    assert [one.question for one in await store.list(tenant="key-a")] == ["problem 3", "problem 2", "problem 0"]
    assert len(await store.list(tenant="key-b")) == 1, "another tenant's count for themselves"


async def test_what_was_kept_goes_with_its_feedback_with_its_request_and_by_its_id(store: MemoryStore) -> None:
    one, two, three = await store.add([solved(f"problem {n}", feedback_id=f"fb-{n}", trace_id=f"t-{n}") for n in range(3)])

    assert await store.forget(feedback_id="fb-0") == 1
    assert await store.forget(trace_id="t-1") == 1
    await store.delete(three.id)
    assert await store.list() == []
    assert await store.forget(feedback_id="fb-0") == 0
    for gone in (one, two, three):
        with pytest.raises(NotFound):
            await store.delete(gone.id)


async def test_requests_that_are_forgotten_take_their_problems_with_them(store: MemoryStore, database: Database) -> None:
    rows = [{"id": f"t-{at}", "started_at": float(at), "model": "auto", "status": "ok", "document": {}} for at in (10, 20)]
    async with database.session() as connection:
        await connection.execute(traces.insert(), rows)
    await store.add([solved(f"of {trace_id}", trace_id=trace_id) for trace_id in ("t-10", "t-20", None)])

    assert await store.forget_requests_before(20.0) == 1
    assert [one.question for one in await store.list()] == ["of None", "of t-20"]


async def test_an_answer_that_is_called_wrong_goes_unless_it_was_entered_by_hand(store: MemoryStore) -> None:
    await store.add([solved("asked twice"), solved("entered", source="import")])

    assert await store.disowned(solved("ASKED twice", answer="something else")) == 0
    assert await store.disowned(solved("ASKED twice", tenant="key-b")) == 0
    assert await store.disowned(solved("ASKED twice", trace_id="t-2")) == 1
    assert await store.disowned(solved("entered")) == 0


@pytest.mark.parametrize("bad", [{"question": "  "}, {"answer": ""}, {"question": "x" * 4001}, {"answer": "x" * 8001}])
async def test_what_is_empty_or_too_long_is_refused_and_nothing_is_kept(store: MemoryStore, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await store.add([solved("fine"), replace(solved(), **bad)])
    assert await store.list() == []


async def test_every_character_can_be_kept(store: MemoryStore) -> None:
    (kept,) = await store.add([solved("What is \0 \ud800 and 🦆?", answer="a \0 duck")])

    assert "duck" in (await store.get(kept.id)).answer


async def test_pages_go_on_where_the_one_before_ended(store: MemoryStore) -> None:
    await store.add([solved(f"problem {n}") for n in range(3)])
    first = await store.list(limit=2)
    rest = await store.list(limit=2, before=first[-1].sequence)

    assert [one.question for one in (*first, *rest)] == ["problem 2", "problem 1", "problem 0"]


async def test_processes_that_write_at_once_lose_nothing(store: MemoryStore, other_process: Database) -> None:
    other = MemoryStore(other_process, max_problems=100)
    mine = MemoryStore(store._database, max_problems=100)
    await asyncio.gather(*(writer.add([solved(f"problem {n} of {writer is mine}")]) for n in range(5) for writer in (mine, other)))
    version, tenants = await mine.changes(0)

    assert len({one.sequence for one in await mine.list()}) == 10
    assert tenants == ["key-a"]
    assert await mine.changes(version) == (version, [])


async def test_what_another_process_deletes_is_never_shown_again(store: MemoryStore, other_process: Database) -> None:
    """As two replicas: each has its indexes, and follows the database."""

    async def shown(memory: ProblemMemory, tenant: str = "key-a") -> list[str]:
        return [one.answer for one in await memory.recall(tenant, ASKED, limit=5, min_similarity=0.4)]

    here, there = ProblemMemory(store, HashingEncoder()), ProblemMemory(MemoryStore(other_process), HashingEncoder())
    (kept,) = await store.add([solved()])
    await here.follow()
    await there.follow()
    assert (await shown(here), await shown(there), await shown(there, "key-b")) == (["60 km/h"], ["60 km/h"], [])
    await MemoryStore(other_process).delete(kept.id)
    await here.follow()
    await there.follow()

    assert (await shown(here), await shown(there)) == ([], [])


async def test_vectors_and_uses_are_no_change_for_those_who_follow(store: MemoryStore, database: Database) -> None:
    (kept,) = await store.add([solved()])
    version, _ = await store.changes(0)
    await store.save_vectors("encoder@1", {kept.id: b"\x00\x3c", "mem-gone": b"\x00\x3c"})
    await store.used({kept.id: 7.0, "mem-gone": 7.0})

    assert await store.changes(version) == (version, [])
    found = await store.get(kept.id)
    assert (found.encoder_id, found.vector, found.used_at) == ("encoder@1", b"\x00\x3c", 7.0)
    async with database.reading() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(solved_problems)) == 1
