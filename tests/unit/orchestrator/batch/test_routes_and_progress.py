"""What the lines of a batch ask, and what is settled of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.batch import RequestCounts
from domain.errors import InvalidRequest
from orchestrator.batch.progress import CallState, LineState, Progress
from orchestrator.batch.routes import RouteTable, RouteTableBuilder
from tests.fakes.batches import PATIENT, batches, table_of

ANSWERED, FAILED = CallState.ANSWERED, CallState.FAILED


def test_a_lines_calls_are_its_candidates_and_then_its_aggregator() -> None:
    table = table_of((["a"], None), (["b", "a"], "c"), (["c"], None))

    assert list(table.candidates(1)) == [1, 2]
    assert table.aggregator(1) == 3
    assert [table.expert_of(call) for call in range(table.num_calls)] == ["a", "b", "a", "c", "c"]
    assert [table.line_of(call) for call in range(table.num_calls)] == [0, 1, 1, 1, 2]


def test_a_single_candidate_needs_no_aggregator() -> None:
    assert table_of((["a"], "c")).aggregator(0) is None


def test_an_expert_that_was_drawn_twice_is_called_twice() -> None:
    table = table_of((["a", "a"], "a"))

    assert (list(table.candidates(0)), table.aggregator(0)) == ([0, 1], 2)


def test_a_line_without_experts_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at least one expert"):
        RouteTableBuilder().add([])


def test_a_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        table_of((["a"], None)).experts[0] = 1


def test_a_line_waits_then_aggregates_then_is_answered() -> None:
    progress = Progress(table_of((["a", "b"], "c")))

    assert progress.settle(0, ANSWERED) is LineState.WAITING
    assert not progress.is_due(2)
    assert progress.settle(1, ANSWERED) is LineState.AGGREGATING
    assert progress.is_due(2)
    assert progress.settle(2, ANSWERED) is LineState.ANSWERED
    assert progress.counts == RequestCounts(total=1, completed=1, failed=0)


def test_one_candidate_that_is_left_is_the_answer() -> None:
    progress = Progress(table_of((["a", "b"], "c")))
    progress.settle(0, FAILED)

    assert progress.settle(1, ANSWERED) is LineState.ANSWERED
    assert not progress.is_due(2)


def test_an_aggregator_that_failed_gives_way_to_the_candidates() -> None:
    progress = Progress(table_of((["a", "b"], "c")))
    for call, state in enumerate((ANSWERED, ANSWERED, FAILED)):
        progress.settle(call, state)

    assert progress.counts == RequestCounts(1, 1, 0)


def test_a_line_fails_when_every_candidate_has() -> None:
    progress = Progress(table_of((["a", "b"], "c"), (["a"], None)))
    progress.settle(0, FAILED)

    assert progress.settle(1, FAILED) is LineState.FAILED
    assert progress.counts == RequestCounts(2, 0, 1)


def test_what_is_settled_stays_as_it_is() -> None:
    progress = Progress(table_of((["a"], None)))
    progress.settle(0, ANSWERED)

    assert progress.settle(0, FAILED) is LineState.ANSWERED
    assert progress[0] is ANSWERED


@PATIENT
@given(batches(), st.data())
def test_the_counts_are_those_of_the_lines_whatever_happens(batch: tuple[RouteTable, object], data: st.DataObject) -> None:
    table, _ = batch
    progress = Progress(table)
    for call in data.draw(st.permutations(range(table.num_calls))):
        progress.settle(call, data.draw(st.sampled_from(CallState)))
        states = [progress.line(line) for line in range(table.num_lines)]

        assert progress.counts == RequestCounts(table.num_lines, states.count(LineState.ANSWERED), states.count(LineState.FAILED))
