"""What holds while a plan runs, however long its loads and turns take."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.batch.cursor import PlanCursor
from orchestrator.batch.host import Host
from orchestrator.batch.plan import BatchPlan, Turn
from orchestrator.batch.planning import plan_batch
from orchestrator.batch.progress import CallState, LineState, Progress
from orchestrator.batch.routes import RouteTable
from tests.fakes.batches import PATIENT, begun_batches, host_of, table_of


@dataclass
class Machine:
    """Loads and works as the cursor allows, and fails the test when that cannot be."""

    plan: BatchPlan
    host: Host
    progress: Progress
    resident: set[tuple[str, str]] = field(init=False)
    loading: list[Turn] = field(default_factory=list)
    working: list[Turn] = field(default_factory=list)
    num_loads: int = 0

    def __post_init__(self) -> None:
        self.resident = set(self.plan.resident)

    def begin_load(self, turn: Turn) -> None:
        assert turn.load is not None
        assert turn.server is not None
        assert turn.device is not None
        used = {other.server for other in self.working if other.device == turn.device}
        assert used.isdisjoint(turn.load.evict), "a server was evicted while it worked"
        assert all(other.device != turn.device for other in self.loading), "two loads at once on one device"
        self.resident -= {(server, turn.device) for server in turn.load.evict}
        assert (turn.server, turn.device) not in self.resident, "loaded twice at once"
        self.resident.add((turn.server, turn.device))
        for device in self.host.devices:
            held = sum(self.host.servers[server].memory_mb for server, place in self.resident if place == device.id)
            assert held <= device.memory_mb, "more is loaded than memory holds"
        self.loading.append(turn)
        self.num_loads += 1

    def leave(self, servers: list[tuple[str, str]]) -> None:
        """They go ahead of the load that needs their memory; a turn that still needed one would not find it."""
        assert {(turn.server, turn.device) for turn in self.working}.isdisjoint(servers), "a server was released while it worked"
        self.resident -= set(servers)

    def begin_turn(self, turn: Turn) -> None:
        if turn.device is not None and turn.server is not None:
            assert (turn.server, turn.device) in self.resident
            assert all((other.server, other.device) != (turn.server, turn.device) for other in self.loading)
            assert sum(other.device == turn.device for other in self.working) < self.plan.slots[turn.device]
        self.working.append(turn)

    def end_turn(self, turn: Turn) -> None:
        self.working.remove(turn)
        for bucket in turn.buckets:
            for call in bucket.calls:
                assert self.progress[call] is CallState.PENDING, "a call is made twice"
                line = self.plan.table.line_of(call)
                if call == self.plan.table.aggregator(line):
                    assert self.progress.line(line) is LineState.AGGREGATING, "an aggregator's line still waits"
                self.progress.settle(call, CallState.ANSWERED)


@PATIENT
@given(begun_batches(), st.data())
def test_a_plan_can_be_run_to_its_end_whatever_takes_how_long(batch: tuple[RouteTable, Host, Progress], data: st.DataObject) -> None:
    """Loads and turns end in any order. Memory, slots and dependencies hold at every moment, nothing is stuck, every line is
    over in the end, and there are as many loads as the plan says."""
    table, host, progress = batch
    plan = plan_batch(table, host, progress)
    machine, cursor = Machine(plan, host, progress), PlanCursor(plan.turns, plan.slots)
    while not cursor.finished:
        for turn in cursor.due_loads():
            machine.begin_load(turn)
            cursor.load_began(turn)
        machine.leave(cursor.leaving())
        for turn in cursor.due_turns():
            machine.begin_turn(turn)
            cursor.began(turn)
        ending = data.draw(st.sampled_from([*machine.loading, *machine.working]))
        if ending in machine.loading:
            machine.loading.remove(ending)
            cursor.load_ended(ending)
        else:
            machine.end_turn(ending)
            cursor.ended(ending)

    assert machine.num_loads == plan.num_loads
    assert progress.counts.pending == 0


@PATIENT
@given(begun_batches())
def test_the_prediction_is_neither_below_its_bounds_nor_above_one_after_the_other(batch: tuple[RouteTable, Host, Progress]) -> None:
    table, host, progress = batch
    plan = plan_batch(table, host, progress)
    work_s = sum(turn.seconds for turn in plan.turns if turn.device)
    load_s = sum(host.servers[turn.server].load_s for turn in plan.turns if turn.load and turn.server)
    elsewhere_s = sum(turn.seconds for turn in plan.turns if not turn.device)
    predicted = plan.prediction

    assert predicted.total_s >= work_s / sum(plan.slots.values()) - 1e-6
    assert predicted.total_s >= load_s / len(host.devices) - 1e-6
    assert predicted.total_s <= work_s + load_s + elsewhere_s + 1e-6


@PATIENT
@given(begun_batches())
def test_the_critical_path_is_without_gaps_and_as_long_as_the_plan(batch: tuple[RouteTable, Host, Progress]) -> None:
    table, host, progress = batch
    plan = plan_batch(table, host, progress)
    path = plan.prediction.critical_path
    ends = [0.0, *(step.span.end_s for step in path)]

    assert [step.span.start_s for step in path] == ends[:-1]
    assert ends[-1] == plan.prediction.total_s
    assert plan.prediction.critical_load_s <= plan.prediction.total_s + 1e-6


def test_loads_hide_behind_work() -> None:
    """One load stands at the start; the others run while servers work, so that the rest of the path is work alone."""
    table = table_of(*[(list("abc"), None)] * 30)
    plan = plan_batch(table, host_of("abc", memory_mb=2, load_s=10))

    assert [(step.is_load, step.span.seconds) for step in plan.prediction.critical_path] == [(True, 10), *[(False, 30)] * 3]


def test_short_loads_come_first_where_work_is_long_enough_to_hide_the_next() -> None:
    host = host_of("ab", memory_mb=2)
    servers = {"a": host.servers["a"], "b": host.servers["b"].__class__("b", 1, 2)}
    plan = plan_batch(table_of(*[(list("ab"), None)] * 20), Host(host.devices, servers, host.experts))

    assert plan.prediction.total_s == pytest.approx(2 + 20 + 20)
