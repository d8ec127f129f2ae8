"""Cascades in batches: the same answers as one by one, in waves, whatever is killed."""

from __future__ import annotations

from typing import Any

import pytest

from domain.batch import BatchState, RequestCounts
from domain.cascade import CascadeRule
from domain.chat import ChatRequest
from domain.errors import ExpertRejected, ExpertUnreachable
from domain.plan import ExpertCall
from orchestrator.batch.preview import preview
from tests.fakes.batch_rig import CHAT, Rig, body_of, chat_line
from tests.fakes.directory import CascadingRouter, FakeRouter
from tests.fakes.workers import Fails
from tests.integration.batch.conftest import MakeRig
from tests.integration.batch.test_engine import text_of
from tests.integration.batch.test_killed import Fuse, run_until_killed

AGREEMENT, JUDGE = CascadeRule(), CascadeRule("judge", judge_expert="fuser")


def unsure(call: ExpertCall) -> str:
    """Says the same every time of even numbers, and something else each time of odd ones."""
    text = text_of(call)
    return f"a says {text}" if int(text.split()[-1]) % 2 == 0 else f"a says {text} {call.params.get('seed', 0)}"


def verdict(call: ExpertCall) -> str:
    number = int(str(call.messages[-1]["content"]).partition("\n[end ")[0].split()[-1])
    return f"FINAL ASSESSMENT: {'YES' if number % 2 == 0 else 'NO'}"


SCRIPT: dict[str, Any] = {"a": unsure, "b": lambda call: f"b says {text_of(call)}", "fuser": verdict}


def cascading(rig: Rig, rule: CascadeRule, *selected: str) -> Rig:
    rig.routers = {"skills": CascadingRouter(rule, *selected), "explicit": FakeRouter(name="explicit")}
    return rig


@pytest.mark.parametrize("rule", [AGREEMENT, JUDGE], ids=["agreement", "judge"])
async def test_every_line_gets_the_answer_that_it_would_get_alone(make_rig: MakeRig, rule: CascadeRule) -> None:
    rig = cascading(make_rig(SCRIPT), rule, "a", "b")
    lines = [chat_line(str(n), f"question {n}") for n in range(6)] + [chat_line("named", "question 6", model="b")]
    alone = {
        line["custom_id"]: body_of(await rig.online.run(ChatRequest("alone", line["body"]["model"], tuple(line["body"]["messages"]))))
        for line in lines
    }
    await rig.submit(*lines)

    batch = await rig.run()

    assert batch.state is BatchState.COMPLETED
    assert batch.counts == RequestCounts(7, 7, 0)
    assert {custom_id: row["body"] for custom_id, row in (await rig.answers()).items()} == alone
    by = {trace.request_id: trace.answered_by for trace in rig.sink.traces}
    assert [by[f"batch_1-{n}"] for n in range(1, 8)] == ["a", "b", "a", "b", "a", "b", "b"]
    assert all(call.note for trace in rig.sink.traces for call in trace.calls if call.stage and call.role == "candidate")


async def test_each_stage_is_a_wave_so_that_no_server_is_loaded_twice(make_rig: MakeRig) -> None:
    rig = cascading(make_rig(SCRIPT, memory_mb=1), AGREEMENT, "a", "b")
    await rig.submit(*(chat_line(str(n), f"question {n}") for n in range(40)))

    batch = await rig.run()

    assert batch.counts.completed == 40
    assert rig.fleet.loaded == ["a", "b"]
    assert batch.num_calls == 40 * 3 + 20


async def test_a_stage_that_fails_for_good_leads_to_the_next(make_rig: MakeRig) -> None:
    rig = cascading(make_rig({**SCRIPT, "a": Fails(ExpertRejected("no"))}), AGREEMENT, "a", "b")
    await rig.submit(chat_line("0", "question 0"))
    await rig.run()

    assert (await rig.answers())["0"]["body"]["choices"][0]["content"] == "b says question 0"


async def test_a_line_fails_when_every_stage_does(make_rig: MakeRig) -> None:
    rig = cascading(make_rig(dict.fromkeys("ab", Fails(ExpertUnreachable("gone")))), AGREEMENT, "a", "b")
    await rig.submit(chat_line("0", "question 0"))
    batch = await rig.run()

    assert batch.counts == RequestCounts(1, 0, 1)
    assert "a" in (await rig.errors())["0"]["error"]["message"]


@pytest.mark.parametrize("rule", [AGREEMENT, JUDGE], ids=["agreement", "judge"])
@pytest.mark.parametrize("after", [False, True], ids=["before it is durable", "when it is durable"])
async def test_killed_at_every_write_no_line_is_lost_and_none_answered_twice(make_rig: MakeRig, rule: CascadeRule, after: bool) -> None:
    clock = [1000.0]
    rig = cascading(make_rig(SCRIPT, now=lambda: clock[0]), rule, "a", "b")
    await rig.submit(*(chat_line(str(n), f"question {n}") for n in range(6)), window_s=1e9)

    num_runs = 0
    while not (await rig.store.get("batch_1")).state.is_final:
        await run_until_killed(rig, clock, Fuse(int(after) or num_runs % 3, after=after), f"process {num_runs}")
        num_runs += 1
        assert num_runs < 400

    answers = await rig.answers()
    assert num_runs >= 3
    assert {int(n): row["body"]["choices"][0]["content"].split()[0] for n, row in answers.items()} == {n: "ab"[n % 2] for n in range(6)}
    assert (await rig.store.get("batch_1")).counts == RequestCounts(6, 6, 0)


async def test_what_has_ended_is_not_asked_again_after_a_kill(make_rig: MakeRig) -> None:
    clock = [1000.0]
    rig = cascading(make_rig(SCRIPT, now=lambda: clock[0]), AGREEMENT, "a", "b")
    await rig.submit(*(chat_line(str(n), f"question {n}") for n in range(1, 13, 2)), window_s=1e9)
    workers: Any = rig.workers
    num_runs = num_kept = 0
    while not (await rig.store.get("batch_1")).state.is_final:
        kept = await rig.store.journal("batch_1", "nobody").calls(range(1, 7))
        num_before = len(workers.calls)
        await run_until_killed(rig, clock, Fuse(num_runs, after=True), f"process {num_runs}")
        for call in workers.calls[num_before:]:
            line, position = (int(text_of(call).split()[-1]) + 1) // 2, 3 if call.expert.id == "b" else call.params.get("seed", 0)
            assert position not in kept.get(line, {})
        num_kept += sum(map(len, kept.values()))
        num_runs += 1
        assert num_runs < 400

    assert num_kept > 0, "some run was killed between the two experts"
    assert (await rig.store.get("batch_1")).counts == RequestCounts(6, 6, 0)


async def test_a_budget_of_calls_counts_a_cascade_as_if_every_stage_were_asked(make_rig: MakeRig) -> None:
    rig = cascading(make_rig(SCRIPT), AGREEMENT, "a", "b")
    await rig.submit(*(chat_line(str(n), f"question {n}") for n in (0, 2, 4)), max_calls=8)
    batch = await rig.run()

    assert batch.counts == RequestCounts(3, 2, 1)
    assert batch.num_calls == 6


async def test_a_preview_plans_what_the_first_expert_is_asked(make_rig: MakeRig) -> None:
    rig = cascading(make_rig(SCRIPT), AGREEMENT, "a", "b")
    await rig.submit(*(chat_line(str(n), f"question {n}") for n in range(4)))
    batch = await rig.store.get("batch_1")
    parts = rig.engine()._parts

    with await rig.files.open(batch.input_file_id) as file:
        seen = await preview(parts, file, CHAT, batch.options)

    assert seen.plan is not None
    assert [(bucket.expert_id, bucket.num_calls) for bucket in seen.plan.buckets] == [("a", 12)]
