"""The order of a plan, its loads, and what it says about them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidRequest
from orchestrator.batch.host import BatchExpert, Device, Host, Server
from orchestrator.batch.plan import due_in
from orchestrator.batch.planning import plan_batch
from orchestrator.batch.progress import CallState, Progress
from orchestrator.batch.routes import RouteTable
from tests.fakes.batches import PATIENT, batches, begun_batches, fewest_loads, host_of, loaded_before, table_of, turns_of


def test_every_server_is_loaded_once_however_the_lines_are_mixed() -> None:
    table = table_of(*[(["a", "b", "c"], None), (["c", "a"], None), (["b"], None)] * 20)
    plan = plan_batch(table, host_of("abc", memory_mb=1))

    assert sorted(turns_of(plan)) == ["a", "b", "c"]
    assert plan.num_loads == 3
    assert plan.why_loads == "3 loads: 3 servers"


def test_what_is_loaded_already_comes_first_and_is_not_loaded() -> None:
    table = table_of((["a"], None), (["b"], None), (["c"], None))
    plan = plan_batch(table, host_of("abc", memory_mb=1, resident=["c"]))

    assert turns_of(plan)[0] == "c"
    assert plan.turns[0].load is None
    assert plan.why_loads == "2 loads: 3 servers, 1 found loaded"


def test_aggregators_come_after_the_candidates_of_their_lines() -> None:
    plan = plan_batch(table_of((["a", "b"], "x")), host_of("abx"))

    assert turns_of(plan)[-1] == "x+"
    assert plan.turns[-1].after == (0, 1)


def test_an_aggregator_is_freed_before_candidates_that_it_does_not_wait_for() -> None:
    table = table_of((["a", "b"], "x"), (["c", "d"], "y"))
    turns = turns_of(plan_batch(table, host_of("abcdxy")))

    assert turns.index("x+") == 2 or turns.index("y+") == 2


def test_the_aggregator_that_finishes_most_lines_a_second_is_freed_first() -> None:
    table = table_of(*[(["c", "d"], "y")] * 2, *[(["a", "b"], "x")] * 6)
    turns = turns_of(plan_batch(table, host_of("abcdxy", call_s=dict.fromkeys("abcdxy", 0.001))))

    assert turns.index("x+") < turns.index("y+")


def test_an_expert_that_is_both_comes_last_among_its_candidates_and_stays_loaded() -> None:
    table = table_of((["x", "a", "b"], "x"), (["a", "x"], "x"))
    plan = plan_batch(table, host_of("abx", memory_mb=1))

    assert turns_of(plan)[-2:] == ["x", "x+"]
    assert plan.num_loads == 3


def test_adapters_share_the_load_of_their_base() -> None:
    host = Host(
        (Device("d", 100),),
        {"base": Server("base", 100, 30), "other": Server("other", 100, 30)},
        {name: BatchExpert(name, 1, "base") for name in ("base", "lora-1", "lora-2")} | {"other": BatchExpert("other", 1, "other")},
    )
    plan = plan_batch(table_of(*[(["lora-1", "other", "lora-2"], None), (["other", "base"], None)] * 3), host)

    assert plan.num_loads == 2
    assert [sorted(bucket.expert_id for bucket in turn.buckets) for turn in plan.turns if turn.server == "base"] == [
        ["base", "lora-1", "lora-2"]
    ]


def test_the_next_server_is_loaded_while_one_works_when_there_is_room_for_both() -> None:
    table = table_of(*[([expert], None) for expert in "abc" for _ in range(20)])
    plan = plan_batch(table, host_of("abc", memory_mb=2))
    loads = [turn.load for turn in plan.turns]

    assert [load.after for load in loads if load] == [(), (), (0,)]  # the third when the first has ended, while the second works
    assert [load.evict for load in loads if load] == [(), (), (plan.turns[0].server,)]
    assert plan.prediction.total_s == 10 + 3 * 20


def test_nothing_is_loaded_ahead_when_there_is_room_for_one() -> None:
    table = table_of(*[([expert], None) for expert in "abc" for _ in range(20)])
    plan = plan_batch(table, host_of("abc", memory_mb=1))

    assert [turn.load.after for turn in plan.turns if turn.load] == [(), (0,), (1,)]
    assert plan.prediction.total_s == 3 * (10 + 20)


def test_what_is_needed_last_is_evicted_first() -> None:
    # x and y are loaded, both aggregate later; x after a, y after everything.
    table = table_of(*[(["a", "a"], "x")] * 3, (["a", "b"], "y"))
    plan = plan_batch(table, host_of("abxy", memory_mb=2, resident=["x", "y"]))
    first = next(turn for turn in plan.turns if turn.load)

    assert turns_of(plan) == ["a", "x+", "b", "y+"]
    assert first.load is not None
    assert first.load.evict == ("y",)


def test_a_pinned_server_stays_and_takes_its_room() -> None:
    table = table_of(*[([expert], None) for expert in "abc"])
    host = host_of("abcx", memory_mb=2, resident=["x"])
    plan = plan_batch(table, replace(host, pinned=frozenset("x")))

    assert all("x" not in turn.load.evict for turn in plan.turns if turn.load)
    assert plan.turns[1].load is not None
    assert plan.turns[1].load.evict == (plan.turns[0].server,)


def test_three_that_all_wait_for_each_other_need_a_load_more_in_room_for_two_and_the_plan_says_why() -> None:
    table = table_of(*[(["a", "b", "c"], aggregator) for aggregator in "abc"])
    plan = plan_batch(table, host_of("abc", memory_mb=2))

    assert plan.num_loads == 4
    (reload,) = plan.reloads
    assert reload.why in plan.why_loads
    assert plan.why_loads.startswith("4 loads: 3 servers, 1 loaded again: ")
    assert f"{reload.server} waits for candidates of " in reload.why
    assert "the 2 MB of d0 cannot hold its 1 MB" in reload.why


def test_two_that_wait_for_each_other_share_room_for_two() -> None:
    plan = plan_batch(table_of((["a", "b"], "a"), (["a", "b"], "b")), host_of("ab", memory_mb=2))

    assert (plan.num_loads, plan.reloads) == (2, ())


@PATIENT
@given(batches())
def test_there_are_as_many_loads_as_servers_whenever_any_order_can_do_with_as_many(batch: tuple[RouteTable, Host]) -> None:
    """By comparison with every order there is. With room for the two largest only servers that wait for each other,
    three or more of them, can make more necessary."""
    table, host = batch
    plan = plan_batch(table, host)
    fewest = fewest_loads(plan, host)

    assert plan.num_loads >= fewest
    if fewest == len(plan.servers):
        assert plan.num_loads == len(plan.servers)
        assert not plan.reloads
    assert len(plan.reloads) == plan.num_loads - len(plan.servers)


@PATIENT
@given(batches(max_servers=8, max_lines=20), st.data())
def test_room_for_the_two_largest_is_enough_when_no_aggregator_is_a_candidate(batch: tuple[RouteTable, Host], data: st.DataObject) -> None:
    table, host = batch
    candidates = {table.expert_of(call) for line in range(table.num_lines) for call in table.candidates(line)}
    taken = {host.experts[expert].server for expert in candidates}
    others = [expert for expert, known in host.experts.items() if known.server is None or known.server not in taken]
    lines = [
        ([table.expert_of(call) for call in table.candidates(line)], data.draw(st.sampled_from(others)) if others else None)
        for line in range(table.num_lines)
    ]
    plan = plan_batch(table_of(*lines), host)

    assert plan.num_loads == len(plan.servers)


@PATIENT
@given(batches(), st.data())
def test_what_was_loaded_before_never_costs_a_load(batch: tuple[RouteTable, Host], data: st.DataObject) -> None:
    table, host = batch
    cold = plan_batch(table, host)
    warm = plan_batch(table, loaded_before(data.draw, host))

    assert cold.reloads or warm.num_loads <= len(warm.servers)


@PATIENT
@given(begun_batches())
def test_a_plan_has_every_call_that_may_still_be_needed_once(batch: tuple[RouteTable, Host, Progress]) -> None:
    table, host, progress = batch
    calls = sorted(call for bucket in plan_batch(table, host, progress).buckets for call in bucket.calls)
    needed = []
    for line in range(table.num_lines):
        pending = [call for call in table.candidates(line) if progress[call] is CallState.PENDING]
        answered = [call for call in table.candidates(line) if progress[call] is CallState.ANSWERED]
        needed += pending
        aggregator = table.aggregator(line)
        if aggregator is not None and len(pending + answered) > 1 and progress[aggregator] is CallState.PENDING:
            needed.append(aggregator)

    assert calls == needed


@PATIENT
@given(begun_batches())
def test_the_same_input_gives_the_same_plan(batch: tuple[RouteTable, Host, Progress]) -> None:
    table, host, progress = batch

    assert plan_batch(table, host, progress) == plan_batch(table, host, progress)


def test_a_batch_that_goes_on_is_planned_without_what_is_answered() -> None:
    table = table_of((["a", "b"], "x"), (["a", "c"], "x"))
    progress = Progress(table)
    for call in (0, 1, 3):
        progress.settle(call, CallState.ANSWERED)
    plan = plan_batch(table, host_of("abcx", resident=["x"]), progress)

    assert turns_of(plan) == ["c", "x+"]
    assert plan.num_loads == 1


def test_an_expert_that_has_failed_is_not_planned_nor_aggregators_that_have_nothing_left_to_read() -> None:
    table = table_of((["a", "b"], "x"), (["a", "c", "d"], "y"))
    progress = Progress(table)
    for call in (0, 3):  # a's
        progress.settle(call, CallState.FAILED)
    plan = plan_batch(table, host_of("abcdxy"), progress)

    assert sorted(turns_of(plan)) == ["b", "c", "d", "y+"]


def test_a_bucket_offers_only_what_is_due_now() -> None:
    table = table_of((["a", "b"], "x"), (["a", "b"], "x"))
    progress = Progress(table)
    plan = plan_batch(table, host_of("abx"))
    for call in (0, 1, 3):
        progress.settle(call, CallState.ANSWERED)

    assert [list(due_in(bucket, progress)) for bucket in plan.turns[-1].buckets] == [[2]]


def test_an_expert_whose_server_fits_nowhere_is_left_out_with_the_reason() -> None:
    table = table_of((["a", "big"], "x"), (["big"], None), (["a", "b"], "big"))
    plan = plan_batch(table, host_of(["a", "b", "big", "x"], sizes={"big": 3}, memory_mb=2))

    assert plan.impossible == {"big": "its server 'big' needs 3 MB, and no device has more than 2 MB for it"}
    assert sorted(turns_of(plan)) == ["a", "b"]


def test_an_expert_that_the_host_does_not_describe_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="expert 'z' was routed to, but the host's description does not have it"):
        plan_batch(table_of((["z"], None)), host_of("a"))


def test_a_host_whose_parts_do_not_fit_together_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="expert 'e' is said to live on server 's', which is not described"):
        Host((), {}, {"e": BatchExpert("e", 1, "s")})


def test_experts_elsewhere_need_no_load_and_no_slot() -> None:
    host = host_of("ab", memory_mb=1)
    host = Host(host.devices, host.servers, {**host.experts, "api": BatchExpert("api", 5)})
    plan = plan_batch(table_of((["a", "api"], None), (["b", "api"], None)), host)
    span = dict(zip(turns_of(plan), plan.prediction.turns, strict=True))

    assert plan.num_loads == 2
    assert (span["api"].start_s, span["api"].end_s) == (0, 10)


def test_a_batch_with_nothing_left_has_an_empty_plan() -> None:
    progress = Progress(table := table_of((["a"], None)))
    progress.settle(0, CallState.ANSWERED)
    plan = plan_batch(table, host_of("a"), progress)

    assert (plan.turns, plan.num_loads, plan.prediction.total_s) == ((), 0, 0)


def test_more_than_a_dozen_that_wait_for_each_other_are_planned_too() -> None:
    names = [f"e{i:02}" for i in range(16)]
    ring = [([name, names[(i + 1) % 16]], name) for i, name in enumerate(names)]
    plan = plan_batch(table_of(*ring), host_of(names, memory_mb=3))

    assert plan.num_loads == 16
