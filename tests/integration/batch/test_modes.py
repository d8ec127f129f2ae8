"""Modes of several steps in batches: the same answers as one by one, in waves, whatever is killed."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from domain.batch import BatchState, RequestCounts
from domain.chat import ChatRequest, RequestOptions
from domain.plan import ExpertCall
from experts_registry.tables import batch_lines
from tests.fakes.batch_rig import Rig, body_of, chat_line
from tests.fakes.directory import FakeRouter
from tests.fakes.memory import FakeMemory
from tests.integration.batch.conftest import MakeRig
from tests.integration.batch.test_killed import Fuse, run_until_killed

WAYS: dict[str, dict[str, Any]] = {
    "moa": {"mode": "moa"},
    "pdr": {"mode": "pdr", "mode_options": {"drafts": 2, "rounds": 2}},
    "chain": {"mode": "chain"},
    "contrast": {"mode": "contrast", "mode_options": {"weak_expert": "b"}},
    "judge": {"aggregator": "judge"},
    "probability": {"aggregator": "weighted_vote", "mode_options": {"weights": "probability"}},
    "effort": {"effort": "low", "mode": "moa"},
    "plan": {"mode": "plan"},
    "evidence": {"mode": "evidence", "mode_options": {"gathering": "top_down", "rounds": 2}},
    "fast_slow": {"mode": "fast_slow", "max_calls": 8, "mode_options": {"redesigns": 0}},
    "memory": {"mode": "memory", "mode_options": {"rounds": 1}},
}


PLAN = "b: What is 1 + 1?\nc: What is 2 + 2?\nb: Which is larger, {1} or {2}?"


def says(name: str) -> Any:
    """What depends on everything that is sent, so that another call than the right one is another answer."""

    def answer(call: ExpertCall) -> str:
        if "You plan" in str(call.messages[0]):
            return PLAN
        if "You check answers" in str(call.messages[0]):
            return "FINAL ASSESSMENT: NO"
        grades = "\n".join(
            f"{point}: {len(str(call.messages)) % 10}" for point in ("correctness", "completeness", "instructions", "clarity")
        )
        return f"{grades}\n{name} read {hash_of(call)}"

    return answer


def hash_of(call: ExpertCall) -> int:
    return sum(map(ord, f"{call.messages}{sorted(call.params.items())}"))


def rig_of(make_rig: MakeRig, **changes: Any) -> Rig:
    rig = make_rig({name: says(name) for name in ("a", "b", "c", "fuser")}, **changes)
    rig.memory = FakeMemory(("question 7", "seven"))
    chosen = ("a", "c") if "b" in rig.fleet.ids else ("a",)
    rig.routers = {"skills": FakeRouter(*chosen), "explicit": FakeRouter(name="explicit")}
    return rig


@pytest.mark.parametrize("way", WAYS)
async def test_every_line_gets_the_answer_that_it_would_get_alone(make_rig: MakeRig, way: str) -> None:
    rig = rig_of(make_rig)
    lines = [chat_line(str(n), f"question {n}", consilium=WAYS[way]) for n in range(4)] + [chat_line("other", "question", model="b")]
    alone = {
        line["custom_id"]: body_of(
            await rig.online.run(
                ChatRequest(
                    "alone",
                    line["body"]["model"],
                    tuple(line["body"]["messages"]),
                    options=RequestOptions(**line["body"].get("consilium", {})),
                )
            )
        )
        for line in lines
    }
    await rig.submit(*lines)

    batch = await rig.run()

    assert batch.state is BatchState.COMPLETED
    assert batch.counts == RequestCounts(5, 5, 0)
    assert {custom_id: row["body"] for custom_id, row in (await rig.answers()).items()} == alone


async def test_who_is_asked_next_is_found_out_once(make_rig: MakeRig) -> None:
    """A chain of two experts: routed for the question, for the first draft, and for a third expert, in vain."""
    rig = rig_of(make_rig)
    await rig.submit(chat_line("x", "question", consilium=WAYS["chain"]))

    await rig.run()

    assert len(rig.workers.calls) == 2  # type: ignore[attr-defined]
    assert len(rig.routers["skills"].queries) == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", WAYS)
async def test_killed_at_every_write_no_line_is_lost_and_none_answered_twice(make_rig: MakeRig, way: str) -> None:
    clock = [1000.0]
    rig = rig_of(make_rig, now=lambda: clock[0])
    lines = [chat_line(str(n), f"question {n}", consilium=WAYS[way]) for n in range(3)]
    await rig.submit(*lines, window_s=1e9)

    num_runs = 0
    while not (await rig.store.get("batch_1")).state.is_final:
        await run_until_killed(rig, clock, Fuse(num_runs % 3, after=bool(num_runs % 2)), f"process {num_runs}")
        num_runs += 1
        assert num_runs < 400

    assert num_runs >= 3
    assert (await rig.store.get("batch_1")).counts == RequestCounts(3, 3, 0)
    undisturbed = rig_of(make_rig)
    for line in lines:
        request = ChatRequest("alone", "auto", tuple(line["body"]["messages"]), options=RequestOptions(**line["body"]["consilium"]))
        answer = await undisturbed.online.run(request)
        assert (await rig.answers())[line["custom_id"]]["body"]["choices"] == [dict(choice.message) for choice in answer.choices]


async def test_a_line_goes_on_with_what_the_memory_had_when_it_was_routed(make_rig: MakeRig) -> None:
    """It is killed after its first round, and what it was shown is deleted meanwhile."""
    clock = [1000.0]
    rig = rig_of(make_rig, now=lambda: clock[0])
    request = chat_line("x", "question", consilium=WAYS["memory"])
    answer = await rig.online.run(
        ChatRequest("alone", "auto", tuple(request["body"]["messages"]), options=RequestOptions(**request["body"]["consilium"]))
    )
    alone = body_of(answer)
    await rig.submit(request, window_s=1e9)

    num_runs = 0
    while not (await rig.store.get("batch_1")).state.is_final:
        await run_until_killed(rig, clock, Fuse(num_runs % 3, after=bool(num_runs % 2)), f"process {num_runs}")
        num_runs += 1
        if await recalled(rig) is not None:
            rig.memory = FakeMemory(("question 8", "eight"))
        assert num_runs < 100

    assert num_runs >= 3
    assert (await rig.answers())["x"]["body"]["choices"] == alone["choices"]
    assert await recalled(rig) is None, "the words of the memory are not kept longer than they are needed"
    (trace,) = [trace for trace in rig.sink.traces if trace.status == "ok"]
    assert trace.decision is not None
    assert trace.decision.detail["memory"] == {"shown": [{"id": "mem-1", "similarity": 0.9}], "writes": False}


async def recalled(rig: Rig) -> Any:
    """What the only line keeps of the memory."""
    async with rig.database.reading() as connection:
        return await connection.scalar(sa.select(batch_lines.c.recalled))


async def test_each_step_is_a_wave_so_that_no_server_is_loaded_more_often_than_steps_need(make_rig: MakeRig) -> None:
    rig = rig_of(make_rig, memory_mb=1)
    await rig.submit(*(chat_line(str(n), f"question {n}", consilium={"mode": "moa", "mode_options": {"layers": 1}}) for n in range(20)))

    batch = await rig.run()

    assert batch.counts.completed == 20
    assert batch.num_calls == 20 * 3
    assert len(rig.fleet.loaded) == 3
