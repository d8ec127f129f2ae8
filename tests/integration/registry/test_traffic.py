"""What pages count and find by, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from domain.audit import AuditEntry
from domain.chat import Choice, Usage
from domain.feedback import Feedback
from domain.plan import CallRole, Candidate
from domain.routing import RoutingDecision
from domain.trace import HASH_PREFIX, CallRecord, Timings, Trace
from experts_registry.audit import AuditLog
from experts_registry.database import Database
from experts_registry.feedback import FeedbackStore
from experts_registry.tables import metadata
from experts_registry.trace_privacy import NOT_KEPT, content_key
from experts_registry.traces import TraceStore
from experts_registry.traffic import TrafficStore

NOON = 1_700_000_000.0 - 1_700_000_000.0 % 3600


def trace(name: str, *calls: CallRecord, at: float = NOON, **changes: object) -> Trace:
    made = Trace(
        request_id=name, id=name, model="auto", strategy="auto", started_at=at, status="ok", calls=calls, timings=Timings(total=10.0)
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def call(expert: str, status: str = "ok", role: CallRole = CallRole.CANDIDATE) -> CallRecord:
    return CallRecord(expert, role, status, 5.0, Usage(10, 2))


async def written(database: Database, *found: Trace, **options: object) -> TraceStore:
    store = TraceStore(database, gather_s=0.0, **options)  # type: ignore[arg-type]
    await store.start()
    for one in found:
        store.emit(one)
    await store.flush()
    await store.close()
    return store


async def test_traffic_adds_up_by_time_outcome_and_expert(database: Database) -> None:
    await written(
        database,
        trace("a", call("x"), call("y"), call("x", role=CallRole.AGGREGATOR), at=NOON),
        trace("b", call("x", "error"), at=NOON + 600, status="error", error_code="all_experts_failed"),
        trace("c", at=NOON + 1200, status="cancelled"),
        trace("d", call("x"), at=NOON + 1260, timings=Timings(total=30.0)),
        trace("before", call("x"), at=NOON - 3600),
        trace("after", call("x"), at=NOON + 7200),
    )

    view = await TrafficStore(database).view(since=NOON, until=NOON + 3599, num_intervals=6)

    assert [(i.began_at - NOON, i.num_ok, i.num_failed, i.num_cancelled) for i in view.intervals] == [
        (0, 1, 0, 0),
        (600, 0, 1, 0),
        (1200, 1, 0, 1),
        (1800, 0, 0, 0),
        (2400, 0, 0, 0),
        (3000, 0, 0, 0),
    ]
    assert (view.num_requests, view.num_failed, view.error_share) == (4, 1, 0.25)
    assert (view.median_ms, view.p95_ms) == (30.0, 30.0)
    x, y = view.experts
    assert (x.expert_id, x.num_requests, x.num_calls, x.num_failed, x.prompt_tokens, x.completion_tokens) == ("x", 3, 4, 1, 40, 8)
    assert (y.expert_id, y.num_requests) == ("y", 1)


async def test_weeks_are_counted_by_hours_and_days_and_forgotten_with_their_traces(database: Database) -> None:
    day = NOON - NOON % 86_400
    store = await written(
        database,
        *(trace(f"old{n}", call("x"), at=day - 5 * 86_400) for n in range(3)),
        trace("new", call("x"), call("y", "error"), at=day + 3600, status="error"),
    )

    view = await TrafficStore(database).view(since=day - 6 * 86_400, until=day + 7200, num_intervals=24)

    assert (view.num_requests, view.num_failed) == (4, 1)
    assert [(e.expert_id, e.num_requests, e.num_failed, e.prompt_tokens) for e in view.experts] == [("x", 4, 0, 40), ("y", 1, 1, 10)]
    await store.delete_before(day)
    left = await TrafficStore(database).view(since=day - 6 * 86_400, until=day + 7200, num_intervals=24)
    assert left.num_requests == 1
    assert (await TrafficStore(database).of_expert("y", since=day)).num_failed == 1
    assert (await TrafficStore(database).of_expert("nobody", since=day)).num_calls == 0


async def test_a_trace_that_is_written_again_is_counted_once(database: Database) -> None:
    """A write whose answer got lost is tried again."""
    first = trace("a", call("x"), call("y"))
    await written(database, first)
    await written(database, first, trace("b", call("x"), at=NOON + 60))
    week = TrafficStore(database).view(since=NOON - 86_400 * 7, until=NOON + 3600, num_intervals=8)

    view = await week
    assert view.num_requests == 2
    assert [(expert.expert_id, expert.num_requests, expert.num_calls) for expert in view.experts] == [("x", 2, 2), ("y", 1, 1)]


async def test_nothing_is_counted_of_nothing(database: Database) -> None:
    view = await TrafficStore(database).view(since=NOON, until=NOON + 60, num_intervals=60)

    assert (view.num_requests, view.error_share, view.median_ms, list(view.experts)) == (0, None, None, [])


async def test_requests_are_found_by_error_expert_and_judgement_page_by_page(database: Database) -> None:
    many = [trace(f"t{n:02d}", call("x" if n % 2 else "y"), at=NOON + n // 2) for n in range(20)]
    failed = trace("failed", call("x", "error"), at=NOON + 5, status="error", error_code="expert_timeout")
    store = await written(database, *many, failed)

    assert [t.id for t in await store.list(error_code="expert_timeout")] == ["failed"]
    first = await store.list(expert_id="x", limit=4)
    rest = await store.list(expert_id="x", limit=50, after=first[-1].id)
    found = [t.id for t in [*first, *rest]]
    assert sorted(found) == sorted([f"t{n:02d}" for n in range(1, 20, 2)] + ["failed"])
    assert found == [t.id for t in await store.list(expert_id="x", limit=50)]
    assert [t.id for t in await store.list(expert_id="x", since=NOON + 9, status="ok")] == ["t19"]


async def test_the_last_feedback_that_counts_is_what_a_request_is_found_by(database: Database) -> None:
    store, log = await written(database, trace("t", call("x"))), FeedbackStore(database)
    said = Feedback("f", "t", "t", NOON, {"correct": False}, scores={"x": 0.0}, answered_by="x")

    await log.add(said)
    assert [t.id for t in await store.list(judged="bad")] == ["t"]
    await log.add(replace(said, id="g", given={"correct": True}, scores={"x": 1.0}))
    assert [t.id for t in await store.list(judged="good")] == ["t"]
    await log.roll_back("g")
    assert [t.id for t in await store.list(judged="bad")] == ["t"]
    await log.roll_back("f")
    assert await store.list(judged="bad") == []


async def test_hashed_texts_can_be_compared_and_not_read(database: Database) -> None:
    said = {"messages": ({"role": "user", "content": "my secret"},), "answer": "my secret"}
    store = await written(database, trace("a", **said), trace("b", **said), content_key=content_key("admin"))

    one, other = await store.get("a"), await store.get("b")

    assert one.messages is not None
    assert one.messages[0]["role"] == "user"
    assert one.messages[0]["content"] == one.answer == other.answer
    assert str(one.answer).startswith(HASH_PREFIX)
    async with database.reading() as connection:
        documents = (await connection.scalars(sa.text("SELECT CAST(document AS TEXT) FROM traces"))).all()
    assert not any("my secret" in document for document in documents)
    assert content_key("admin") != content_key("another")


@pytest.mark.parametrize("key", [None, content_key("admin")], ids=["off", "hashed"])
async def test_what_experts_answered_to_the_router_is_not_kept_in_the_clear(database: Database, key: bytes | None) -> None:
    answered = Candidate("glider", (Choice({"role": "assistant", "content": "my secret"}),))
    detail = {"instruction": "my secret", "notes": ["it said my secret"], "alpha": 0.25}
    decision = RoutingDecision(
        "budget", ("x",), reason="The task is: my secret", calls=(answered,), detail={**detail, "base": {"router": "instruction", **detail}}
    )
    asked = call("glider", role=CallRole.ANNOTATOR)
    line = replace(decision, calls=())  # of a batch's line the calls alone tell that the router asked somebody
    said = {} if key is None else {"messages": ({"role": "user", "content": "my secret"},)}
    store = await written(database, trace("a", asked, decision=decision, **said), trace("b", asked, decision=line, **said), content_key=key)

    async with database.reading() as connection:
        documents = (await connection.scalars(sa.text("SELECT CAST(document AS TEXT) FROM traces"))).all()
    assert len(documents) == 2
    assert not any("my secret" in document for document in documents)
    kept = (await store.get("a")).decision
    assert kept is not None
    assert kept.calls == ()
    assert kept.detail["alpha"] == kept.detail["base"]["alpha"] == 0.25
    assert kept.reason == NOT_KEPT if key is None else kept.reason.startswith(HASH_PREFIX)


async def test_the_reason_of_a_router_that_asked_nobody_is_kept(database: Database) -> None:
    decision = RoutingDecision("skills", ("x",), reason="x is best at algebra", detail={"notes": ["read with the turns before it"]})
    store = await written(database, trace("a", decision=decision), trace("b", decision=decision), content_key=content_key("admin"))

    assert (await store.get("a")).decision == decision


async def test_what_experts_answered_to_the_router_stands_once_in_a_trace(database: Database) -> None:
    answered = Candidate("glider", (Choice({"role": "assistant", "content": "a task of sums"}),))
    decision = RoutingDecision("instruction", ("x",), reason="The task is: a task of sums", calls=(answered,))
    asked = replace(call("glider", role=CallRole.ANNOTATOR), text="a task of sums")
    store = await written(database, trace("a", asked, decision=decision, messages=({"role": "user", "content": "2 + 2"},)))

    kept = await store.get("a")
    assert kept.decision == replace(decision, calls=())
    assert kept.calls == (asked,)


async def test_the_history_of_one_thing_begins_with_its_making(database: Database) -> None:
    log = AuditLog(database)
    base = AuditEntry("1", 1.0, "admin", "owner", "POST", "/admin/api/experts", 201, "r", None, {"id": "a b"})
    await log.add(base)
    await log.add(replace(base, id="2", at=2.0, method="PATCH", path="/admin/api/experts/a%20b", status=200, before={"id": "a b"}))
    await log.add(replace(base, id="3", at=3.0, after={"id": "other"}))

    assert [entry.id for entry in await log.list(about="/admin/api/experts/a%20b")] == ["2", "1"]


@pytest.mark.parametrize(
    ("table", "name"), [("traces", "ix_traces_judged_started_at_id"), ("profile_outcomes", "ix_profile_outcomes_right")]
)
def test_what_pages_ask_for_has_an_index(table: str, name: str) -> None:
    assert name in {index.name for index in metadata.tables[table].indexes}
