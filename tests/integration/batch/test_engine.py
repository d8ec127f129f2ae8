"""Batches from input to output: the same answers as one by one, each line by itself, each server loaded once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest

from domain.batch import BatchState, InputLine, RequestCounts
from domain.chat import ChatRequest, Usage
from domain.errors import (
    ExpertAuthFailed,
    ExpertError,
    ExpertOverloaded,
    ExpertProtocolError,
    ExpertRejected,
    ExpertTimeout,
    ExpertUnavailable,
    ExpertUnreachable,
    NotReady,
    Overloaded,
)
from domain.experts import HealthState
from domain.plan import CallRole, Candidate, ExpertCall
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision, RoutingQuery
from domain.strategy import Strategy
from orchestrator.batch import engine
from orchestrator.batch.input_file import InputFile
from orchestrator.batch.rights import FixedRights
from tests.fakes.batch_rig import QUICK, body_of, chat_line
from tests.fakes.directory import FakeDirectory, card
from tests.fakes.workers import Fails, Stalls
from tests.integration.batch.conftest import MakeRig


def text_of(query_or_call: RoutingQuery | ExpertCall) -> str:
    request = query_or_call.request if isinstance(query_or_call, RoutingQuery) else query_or_call
    return str(request.messages[-1]["content"])


def named_in_the_text(query: RoutingQuery) -> list[str]:
    """Whom the question names: "ab 7" is for a and b."""
    return list(text_of(query).split()[0])


def echo(name: str) -> Any:
    return lambda call: f"{name} says {text_of(call)}"


ECHOES = {name: echo(name) for name in (*"abcd", "fuser")}


async def test_every_line_gets_the_answer_that_it_would_get_alone(make_rig: MakeRig) -> None:
    """One expert, a panel with an aggregator, a vote: bodies equal those of the online path, line for line."""
    rig = make_rig(ECHOES, choose=named_in_the_text)
    models = ("auto", "consilium/panel", "consilium/vote", "b")
    lines = [chat_line(f"{model}-{who}", f"{who} {n}", model=model) for n, who in enumerate(("a", "ab", "cab", "d")) for model in models]
    alone = {}
    for line in lines:
        body = line["body"]
        answer = await rig.online.run(ChatRequest("alone", body["model"], tuple(body["messages"])))
        alone[line["custom_id"]] = body_of(answer)
    await rig.submit(*lines)

    batch = await rig.run()

    assert batch.state is BatchState.COMPLETED
    assert batch.counts == RequestCounts(len(lines), len(lines), 0)
    assert {custom_id: row["body"] for custom_id, row in (await rig.answers()).items()} == alone
    assert batch.error_file_id is None


async def test_each_server_is_loaded_once_although_there_is_room_for_two(make_rig: MakeRig) -> None:
    """Sixty lines in no order over four experts and an aggregator: five loads."""
    rig = make_rig(ECHOES, choose=named_in_the_text, memory_mb=2)
    lines = [chat_line(str(n), f"{'abcd'[n % 4]}{'abcd'[(n + 1) % 4]} {n}", model="consilium/panel") for n in range(60)]
    await rig.submit(*lines)

    batch = await rig.run()

    assert batch.counts == RequestCounts(60, 60, 0)
    assert sorted(rig.fleet.loaded) == ["a", "b", "c", "d", "fuser"]
    assert batch.num_calls == 180
    assert {expert for expert, _ in rig.fleet.measures} == {"a", "b", "c", "d", "fuser"}


async def test_calls_of_a_bucket_run_at_the_same_time_within_the_experts_limit(make_rig: MakeRig) -> None:
    rig = make_rig({"a": Stalls()}, "a")
    await rig.submit(*(chat_line(str(n), f"a {n}") for n in range(40)))
    running = asyncio.create_task(rig.run())

    await rig.workers.until_started("a", 32)  # type: ignore[attr-defined]
    rig.workers.release("a")  # type: ignore[attr-defined]
    await running

    assert rig.workers.max_in_flight["a"] == 32  # type: ignore[attr-defined]


async def test_a_line_fails_alone_with_its_own_error(make_rig: MakeRig) -> None:
    """Refused by its expert, routed to nobody, an unknown model: each says its own, the others are answered."""

    def picky(call: ExpertCall) -> Any:
        return Fails(ExpertRejected("too rude")) if "rude" in text_of(call) else "fine"

    rig = make_rig({"a": picky}, "a")
    await rig.submit(chat_line("good", "hello"), chat_line("bad", "rude"), chat_line("lost", "hello", model="nobody"))

    batch = await rig.run()

    errors = await rig.errors()
    assert batch.state is BatchState.COMPLETED
    assert batch.counts == RequestCounts(3, 1, 2)
    assert rig.num_ended == [1, 2]
    assert list(await rig.answers()) == ["good"]
    assert "too rude" in errors["bad"]["error"]["message"]
    assert "nobody" in errors["lost"]["error"]["message"]


async def test_an_aggregator_that_fails_gives_way_to_the_best_candidate(make_rig: MakeRig) -> None:
    rig = make_rig({**ECHOES, "fuser": Fails(ExpertRejected("no"))}, "b", "a")
    await rig.submit(chat_line("x", "hello", model="consilium/panel"))

    await rig.run()

    assert (await rig.answers())["x"]["body"]["choices"][0]["content"] == "b says hello"
    (trace,) = rig.sink.traces
    assert trace.aggregator == "fuse:fuser (fallback)"
    assert [(call.expert_id, call.role, call.status) for call in trace.calls] == [
        ("b", CallRole.CANDIDATE, "ok"),
        ("a", CallRole.CANDIDATE, "ok"),
        ("fuser", CallRole.AGGREGATOR, "error"),
    ]


async def test_a_panel_of_which_one_is_left_needs_no_aggregator(make_rig: MakeRig) -> None:
    rig = make_rig({"a": Fails(ExpertRejected("no")), "b": echo("b")}, "a", "b")
    await rig.submit(chat_line("x", "hello", model="consilium/panel"))

    batch = await rig.run()

    assert (await rig.answers())["x"]["body"]["choices"][0]["content"] == "b says hello"
    assert batch.num_calls == 2


async def test_a_server_that_is_down_for_a_while_costs_no_line(make_rig: MakeRig) -> None:
    """Calls that failed because nobody answered are made again."""
    failures = [Fails(ExpertUnreachable("gone")) for _ in range(5)]
    rig = make_rig({"a": [*failures, *(["back"] * 10)]}, "a")
    await rig.submit(*(chat_line(str(n), f"a {n}") for n in range(10)))

    batch = await rig.run()

    assert batch.counts == RequestCounts(10, 10, 0)


async def test_a_call_that_brings_its_server_down_each_time_comes_to_an_end(make_rig: MakeRig) -> None:
    """The others are answered in between; it fails when the expert has answered nobody for the length of an outage."""

    def poisoned(call: ExpertCall) -> Any:
        return Fails(ExpertUnreachable("gone")) if "poison" in text_of(call) else "fine"

    rig = make_rig({"a": poisoned}, "a", cards=(card("a", max_in_flight=1),))
    await rig.submit(chat_line("poison", "poison"), *(chat_line(str(n), f"a {n}") for n in range(6)))

    batch = await rig.run()

    assert batch.counts == RequestCounts(7, 6, 1)
    assert list(await rig.errors()) == ["poison"]


async def test_an_answer_that_is_none_has_three_attempts(make_rig: MakeRig) -> None:
    """The expert is there, and says nothing that can be used: to wait longer would not help."""
    rig = make_rig({"a": Fails(ExpertProtocolError("gibberish"))}, "a")
    await rig.submit(chat_line("x", "a 1"))

    batch = await rig.run()

    assert batch.counts == RequestCounts(1, 0, 1)
    assert len(rig.workers.calls) == rig.limits.max_attempts  # type: ignore[attr-defined]


async def test_an_expert_with_too_many_calls_is_given_the_time_that_it_asks_for(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals for being busy are no attempts; the pause is what the expert says."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(engine, "BucketRun", partial(engine.BucketRun, sleep=sleep, clock=lambda: 0.0))
    busy = [Fails(ExpertOverloaded("slow down", retry_after_s=7.0)) for _ in range(9)]
    rig = make_rig({"a": [*busy, "fine"]}, "a", limits=replace(QUICK, max_outage_s=60.0))
    await rig.submit(chat_line("x", "a 1"))

    batch = await rig.engine("one").run(await rig.claimed())

    assert batch.counts == RequestCounts(1, 1, 0)
    assert pauses == [7.0] * 9


async def test_an_expert_that_is_busy_is_not_sent_the_whole_bucket_again_and_again(make_rig: MakeRig) -> None:
    """The calls that were under way are refused, the others are not even made until it had its pause."""
    rig = make_rig({"a": Fails(ExpertOverloaded("slow down"))}, "a", cards=(card("a", max_in_flight=2),))
    await rig.submit(*(chat_line(str(n), f"a {n}") for n in range(200)))

    batch = await rig.run()

    assert batch.counts == RequestCounts(200, 0, 200)
    assert len(rig.workers.calls) < 100  # type: ignore[attr-defined]


async def test_calls_of_the_router_count(make_rig: MakeRig) -> None:
    """They stand in the trace, the batch's calls and its tokens, and take their part of the budget."""
    asked = Candidate("c", (), Usage(10, 5), latency_s=0.1)
    rig = make_rig({"a": "fine"}, "a")
    router = rig.routers["skills"]
    decide = router.route

    async def with_calls(query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:
        return replace(await decide(query, snapshot), calls=(asked, asked))

    router.route = with_calls  # type: ignore[method-assign]
    await rig.submit(chat_line("x", "a 1"), chat_line("y", "a 2"), max_calls=5)

    batch = await rig.run()

    assert batch.counts == RequestCounts(2, 1, 1)
    assert batch.num_calls == 5
    (trace,) = rig.sink.traces
    assert [call.role for call in trace.calls] == [CallRole.ANNOTATOR, CallRole.ANNOTATOR, CallRole.CANDIDATE]
    assert trace.usage.prompt_tokens == 23


async def test_an_input_that_is_lost_keeps_what_was_answered(make_rig: MakeRig) -> None:
    rig = make_rig({"a": "fine", "b": Stalls()}, choose=named_in_the_text)
    await rig.submit(chat_line("a", "a 1"), chat_line("b", "b 1"))
    first = asyncio.create_task(rig.run())
    await rig.workers.until_started("b")  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        while not (await rig.store.get("batch_1")).counts.completed:
            await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await rig.store.release("batch_1", "one")
    for path in (rig.folder).rglob((await rig.store.get("batch_1")).input_file_id + "*"):
        path.write_bytes(b"something else\n" * 50)

    batch = await rig.run("two")

    assert batch.state is BatchState.FAILED
    assert "input file" in batch.errors[0].message
    assert list(await rig.answers()) == ["a"]


async def test_what_stays_down_fails_its_lines_and_nobody_elses(make_rig: MakeRig) -> None:
    """It is tried for as long as an outage may last, no longer; the error names the expert and what it did."""
    rig = make_rig({"a": Fails(ExpertUnreachable("gone")), "b": "fine"}, choose=named_in_the_text)
    await rig.submit(*(chat_line(f"{who}{n}", f"{who} {n}") for who in "ab" for n in range(4)))

    batch = await rig.run()

    assert batch.counts == RequestCounts(8, 4, 4)
    assert 8 <= len(rig.workers.calls_to("a")) <= 60  # type: ignore[attr-defined]
    assert "a: gone" in (await rig.errors())["a0"]["error"]["message"]


async def test_an_expert_that_may_not_be_called_is_waited_for_and_then_given_up(make_rig: MakeRig) -> None:
    """While a circuit is open no attempt is counted; it ends all the same."""
    rig = make_rig({"a": Fails(ExpertUnavailable("circuit open"))}, "a")
    await rig.submit(*(chat_line(str(n), f"a {n}") for n in range(200)))

    batch = await rig.run()

    assert batch.counts == RequestCounts(200, 0, 200)
    assert batch.num_calls == 0
    assert len(rig.workers.calls) < 600  # type: ignore[attr-defined]


@pytest.mark.parametrize("model", ["a", "auto"])
async def test_a_circuit_that_is_open_when_the_batch_is_routed_costs_no_line(make_rig: MakeRig, model: str) -> None:
    """Nobody could answer at that moment; when the calls are made the cool-down is over."""
    rig = make_rig({"a": "fine"}, "a", cards=(card("a"),))
    directory = cast(FakeDirectory, rig.directory)
    directory.health["a"] = HealthState.OPEN
    directory.begin_call = lambda _expert: 1  # type: ignore[assignment, method-assign, return-value]
    await rig.submit(chat_line("x", "hello", model=model))

    assert (await rig.run()).counts == RequestCounts(1, 1, 0)


async def test_a_server_that_cannot_be_loaded_fails_its_lines_with_the_reason(make_rig: MakeRig) -> None:
    rig = make_rig(ECHOES, choose=named_in_the_text)
    rig.fleet.broken["a"] = ExpertUnreachable("the weights are not there")
    await rig.submit(chat_line("a", "a 1"), chat_line("b", "b 1"))

    batch = await rig.run()

    assert batch.counts == RequestCounts(2, 1, 1)
    assert "the weights are not there" in (await rig.errors())["a"]["error"]["message"]
    assert rig.workers.called() == ["b"]  # type: ignore[attr-defined]


async def test_a_load_that_fails_once_or_twice_costs_no_line(make_rig: MakeRig) -> None:
    rig = make_rig(ECHOES, choose=named_in_the_text)
    rig.fleet.fails_first["a"] = [ExpertUnreachable("no memory left"), ExpertTimeout("it hung")]
    await rig.submit(chat_line("a", "a 1"), chat_line("b", "b 1"))

    batch = await rig.run()

    assert batch.counts == RequestCounts(2, 2, 0)
    assert sorted(rig.fleet.loaded) == ["a", "b"]


@pytest.mark.parametrize(("error", "num_tries"), [(ExpertUnreachable("gone"), QUICK.max_failed_loads), (ExpertAuthFailed("no"), 1)])
async def test_a_load_that_keeps_failing_is_tried_as_often_as_a_bucket_and_one_that_cannot_pass_once(
    make_rig: MakeRig, error: ExpertError, num_tries: int
) -> None:
    rig = make_rig(ECHOES, "a")
    rig.fleet.broken["a"] = error
    await rig.submit(chat_line("a", "a 1"))

    assert (await rig.run()).counts == RequestCounts(1, 0, 1)
    assert rig.fleet.num_tried == num_tries


async def test_the_pauses_between_loads_end_with_the_wait_for_a_server(make_rig: MakeRig) -> None:
    """A pause of an hour, cut short by the time that there is for a server."""
    limits = replace(QUICK, first_pause_s=3600.0, max_pause_s=3600.0, max_failed_loads=100, load_timeout_s=0.05)
    rig = make_rig(ECHOES, "a", limits=limits)
    rig.fleet.broken["a"] = ExpertUnreachable("gone")
    await rig.submit(chat_line("a", "a 1"))

    assert (await rig.run()).counts == RequestCounts(1, 0, 1)
    assert rig.fleet.num_tried == 2, "before the first pause, which ends with the deadline, and after it"


async def test_lines_whose_server_never_came_are_told_why(make_rig: MakeRig) -> None:
    """Not that the time was over in the end."""
    limits = replace(QUICK, first_pause_s=3600.0, max_pause_s=3600.0, load_timeout_s=0.05)
    rig = make_rig(ECHOES, "a", limits=limits)
    rig.fleet.fails_first["a"] = [ExpertUnreachable("no memory left"), ExpertTimeout("the deadline came while it was waited for")]
    await rig.submit(chat_line("a", "a 1"))
    await rig.run()

    assert "no memory left" in (await rig.errors())["a"]["error"]["message"]


async def test_a_process_that_cannot_start_servers_fails_no_line(make_rig: MakeRig) -> None:
    rig = make_rig(ECHOES, choose=named_in_the_text)
    rig.fleet.trouble = "another process manages them"
    await rig.submit(chat_line("a", "a 1"), chat_line("b", "b 1"))

    with pytest.raises(NotReady, match="another process manages them"):
        await rig.run()
    assert (await rig.store.get("batch_1")).counts == RequestCounts(2, 0, 0)
    rig.fleet.trouble = None

    assert (await rig.engine().run(await rig.store.get("batch_1"))).counts == RequestCounts(2, 2, 0)


async def test_an_expert_that_fits_nowhere_fails_its_lines_with_the_figures(make_rig: MakeRig) -> None:
    rig = make_rig(ECHOES, "a", memory_mb=0.5)
    await rig.submit(chat_line("x", "a 1"))

    await rig.run()

    assert "needs 1 MB" in (await rig.errors())["x"]["error"]["message"]


async def test_however_many_lines_fail_together_they_are_read_chunk_by_chunk(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 100,000 lines for an expert that fits nowhere must not be in memory at once."""
    sizes: list[int] = []
    read = InputFile.bodies

    async def counted(file: InputFile, lines: Sequence[InputLine]) -> list[Any]:
        sizes.append(len(lines))
        return await read(file, lines)

    monkeypatch.setattr(InputFile, "bodies", counted)
    rig = make_rig(ECHOES, "a", memory_mb=0.5)
    await rig.submit(*(chat_line(str(n), f"a {n}") for n in range(50)))

    batch = await rig.run()

    assert batch.counts == RequestCounts(50, 0, 50)
    assert max(sizes) <= rig.limits.chunk_lines


async def test_wrong_lines_fail_the_batch_before_anything_is_run(make_rig: MakeRig) -> None:
    """Every wrong line is named by its number; nothing is asked."""
    rig = make_rig(ECHOES, "a")
    await rig.submit(chat_line("x", "one"), "{broken", chat_line("x", "again"), {**chat_line("y", "two"), "url": "/v1/embeddings"})

    batch = await rig.run()

    assert batch.state is BatchState.FAILED
    assert [(error.line, str(error.code)) for error in batch.errors] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "url_mismatch"),
    ]
    assert rig.workers.calls == []  # type: ignore[attr-defined]


async def test_a_call_has_time_for_its_server_to_be_loaded(make_rig: MakeRig) -> None:
    """Beside what its strategy gives a request: nobody waits at the other end."""
    rig = make_rig(ECHOES, "a")
    await rig.submit(chat_line("x", "a 1"))

    await rig.run()

    (call,) = rig.workers.calls  # type: ignore[attr-defined]
    assert call.deadline.remaining_s > Strategy(id="auto").timeout_s


async def test_a_budget_of_calls_is_given_to_the_first_lines_and_nothing_is_wasted(make_rig: MakeRig) -> None:
    """Lines of three calls each; seven calls are two lines."""
    rig = make_rig(ECHOES, "a", "b")
    await rig.submit(*(chat_line(str(n), "hello", model="consilium/panel") for n in range(5)), max_calls=7)

    batch = await rig.run()

    assert list(await rig.answers()) == ["0", "1"]
    assert batch.num_calls == 6
    assert {row["error"]["code"] for row in (await rig.errors()).values()} == {"batch_budget_exceeded"}


async def test_a_budget_of_tokens_ends_the_batch_when_it_is_spent(make_rig: MakeRig) -> None:
    """Eight tokens a call: with one call at a time the third is the last."""
    rig = make_rig({"a": "fine"}, "a", cards=(card("a", max_in_flight=1),))
    await rig.submit(*(chat_line(str(n), f"a {n}") for n in range(9)), max_tokens=20)

    batch = await rig.run()

    assert batch.state is BatchState.COMPLETED
    assert batch.counts == RequestCounts(9, 3, 6)
    assert {row["error"]["code"] for row in (await rig.errors()).values()} == {"batch_budget_exceeded"}


async def test_the_batchs_strategy_is_asked_where_a_line_says_auto(make_rig: MakeRig) -> None:
    rig = make_rig(ECHOES, "a", "b")
    await rig.submit(chat_line("auto", "hello"), chat_line("own", "hello", model="c"), strategy="panel")

    await rig.run()

    answers = await rig.answers()
    assert answers["auto"]["body"]["choices"][0]["content"].startswith("fuser says")
    assert answers["own"]["body"]["choices"][0]["content"] == "c says hello"


async def test_cancelled_in_the_middle_it_keeps_what_was_answered(make_rig: MakeRig) -> None:
    """Calls that run are ended; every line stands in one of the two files."""
    rig = make_rig({"a": "fine", "b": Stalls()}, choose=named_in_the_text)
    await rig.submit(*(chat_line(f"{who}{n}", f"{who} {n}") for who in "ab" for n in range(3)))
    running = asyncio.create_task(rig.run())
    await rig.workers.until_started("b", 3)  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        while (await rig.store.get("batch_1")).counts.completed < 3:
            await asyncio.sleep(0.01)

    await rig.store.cancel("batch_1")
    batch = await running

    assert batch.state is BatchState.CANCELLED
    assert rig.num_ended == [3, 3]
    assert sorted(await rig.answers()) == ["a0", "a1", "a2"]
    errors = await rig.errors()
    assert sorted(errors) == ["b0", "b1", "b2"]
    assert {row["error"]["code"] for row in errors.values()} == {"batch_cancelled"}
    assert rig.workers.cancelled == ["b", "b", "b"]  # type: ignore[attr-defined]


async def test_when_its_window_ends_it_keeps_what_was_answered(make_rig: MakeRig) -> None:
    clock = [1000.0]
    rig = make_rig({"a": "fine", "b": Stalls()}, choose=named_in_the_text, now=lambda: clock[0])
    await rig.submit(chat_line("a", "a 1"), chat_line("b", "b 1"), window_s=60)
    running = asyncio.create_task(rig.run())
    await rig.workers.until_started("b")  # type: ignore[attr-defined]

    clock[0] += 50
    await asyncio.sleep(0.05)
    assert not running.done()
    clock[0] += 10
    batch = await running

    assert batch.state is BatchState.EXPIRED
    assert list(await rig.answers()) == ["a"]
    assert (await rig.errors())["b"]["error"]["code"] == "batch_expired"


async def test_every_line_leaves_a_trace(make_rig: MakeRig) -> None:
    rig = make_rig(ECHOES, choose=named_in_the_text)
    await rig.submit(chat_line("x", "ab 1", model="consilium/panel"), chat_line("y", "c 2"))

    await rig.run()

    traces = {trace.request_id: trace for trace in rig.sink.traces}
    assert set(traces) == {"batch_1-1", "batch_1-2"}
    assert traces["batch_1-1"].num_calls == 3
    assert traces["batch_1-1"].decision is not None
    assert traces["batch_1-1"].decision.selected == ("a", "b")
    assert traces["batch_1-2"].status == "ok"
    panel = traces["batch_1-1"]
    calls = {call.expert_id: call for call in panel.calls}
    ends = {name: (call.started_ms or 0.0) + call.latency_ms for name, call in calls.items()}
    (reader,) = calls.keys() - {"a", "b"}
    assert 0 <= max(ends["a"], ends["b"]) <= (calls[reader].started_ms or 0.0), "as if they had been made in one go"
    assert ends[reader] <= panel.timings.total


async def test_a_line_waits_while_the_service_is_busy_and_fails_when_it_stays_so(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue says nothing about the line."""
    monkeypatch.setattr("orchestrator.batch.routing._FIRST_PAUSE_S", 0.001)
    busy: Counter[str] = Counter()

    class Vectors:
        """An endpoint that calls no expert."""

        def check(self, body: Mapping[str, Any]) -> None: ...

        async def answer(self, body: Mapping[str, Any], request_id: str) -> Mapping[str, Any]:
            busy[body["input"]] += 1
            if busy[body["input"]] < body["works_at"]:
                raise Overloaded("the queue is full", retry_after_s=1)
            return {"for": body["input"]}

    rig = make_rig({}, shapes={"/v1/embeddings": Vectors()})
    bodies = [{"input": "a", "works_at": 1}, {"input": "b", "works_at": 3}, {"input": "c", "works_at": 4}]
    lines = [{"custom_id": body["input"], "method": "POST", "url": "/v1/embeddings", "body": body} for body in bodies]
    await rig.submit(*lines, endpoint="/v1/embeddings")

    await rig.run()

    assert {custom_id: row["body"] for custom_id, row in (await rig.answers()).items()} == {"a": {"for": "a"}, "b": {"for": "b"}}
    assert "the queue is full" in (await rig.errors())["c"]["error"]["message"]


class SpentAfter(FixedRights):
    """A key whose budget is spent after so many answers."""

    def __init__(self, num_answers: int) -> None:
        super().__init__()
        self.num_left = num_answers
        self.is_spent = False

    def counted(self, answer: Mapping[str, Any]) -> None:
        del answer
        self.num_left -= 1
        self.is_spent = self.num_left <= 0


async def test_a_spent_budget_ends_a_batch_that_calls_no_expert(make_rig: MakeRig) -> None:
    """What was answered is kept; no further line is begun."""
    asked: list[str] = []

    class Vectors:
        def check(self, body: Mapping[str, Any]) -> None: ...

        async def answer(self, body: Mapping[str, Any], request_id: str) -> Mapping[str, Any]:
            asked.append(request_id)
            return {"for": body["input"]}

    rights = SpentAfter(2)
    rig = make_rig({}, shapes={"/v1/embeddings": Vectors()}, rights_of=lambda _: rights, limits=replace(QUICK, route_at_once=1))
    bodies = [{"custom_id": name, "method": "POST", "url": "/v1/embeddings", "body": {"input": name}} for name in "abcd"]
    await rig.submit(*bodies, endpoint="/v1/embeddings")

    batch = await rig.run()

    assert batch.state is BatchState.COMPLETED
    assert len(asked) == 2
    assert {custom_id: row["body"] for custom_id, row in (await rig.answers()).items()} == {"a": {"for": "a"}, "b": {"for": "b"}}
    assert {row["error"]["code"] for row in (await rig.errors()).values()} == {"batch_budget_exceeded"}


@pytest.mark.parametrize("num_lines", [0, 1])
async def test_the_smallest_inputs(make_rig: MakeRig, num_lines: int) -> None:
    rig = make_rig(ECHOES, "a")
    await rig.submit(*(chat_line(str(n), "a 1") for n in range(num_lines)))

    batch = await rig.run()

    assert batch.state is (BatchState.COMPLETED if num_lines else BatchState.FAILED)
