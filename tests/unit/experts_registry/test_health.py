"""Circuits: closed, open, half-open."""

from __future__ import annotations

import pytest

from domain.experts import HealthState
from domain.plan import ExpertFailure
from experts_registry.health import HealthBoard, HealthPolicy
from tests.fakes.registry import make_candidate, make_failure

CLOSED, OPEN, HALF_OPEN = HealthState.CLOSED, HealthState.OPEN, HealthState.HALF_OPEN
POLICY = HealthPolicy(max_faults=3, cool_down_s=15, max_cool_down_s=40, max_trial_s=100)


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(name="time")
def _time() -> Time:
    return Time()


@pytest.fixture(name="board")
def _board(time: Time) -> HealthBoard:
    return HealthBoard(clock=time, policy=POLICY)


def _fail(board: HealthBoard, times: int = 1) -> None:
    for _ in range(times):
        board.record(make_failure(), call=board.begin_call("numerals"))


def test_an_expert_that_nobody_called_is_healthy(board: HealthBoard) -> None:
    assert board.state_of("numerals") is CLOSED
    assert board.begin_call("numerals")


def test_three_faults_in_a_row_open_the_circuit(board: HealthBoard) -> None:
    _fail(board, 2)
    assert board.state_of("numerals") is CLOSED

    _fail(board)

    assert board.state_of("numerals") is OPEN
    assert not board.begin_call("numerals")


def test_an_answer_in_between_starts_the_count_anew(board: HealthBoard) -> None:
    _fail(board, 2)
    board.record(make_candidate())
    _fail(board, 2)

    assert board.state_of("numerals") is CLOSED


def test_a_refused_input_says_nothing_about_health(board: HealthBoard) -> None:
    for _ in range(10):
        board.record(make_failure(at_fault=False))
    assert board.state_of("numerals") is CLOSED

    _fail(board, 2)
    board.record(make_failure(at_fault=False))
    _fail(board)

    assert board.state_of("numerals") is OPEN


def test_after_the_cool_down_one_trial_at_a_time_is_allowed(board: HealthBoard, time: Time) -> None:
    _fail(board, 3)
    time.now += 14.9
    assert board.state_of("numerals") is OPEN
    time.now += 0.1
    assert board.state_of("numerals") is HALF_OPEN
    assert board.state_of("numerals") is HALF_OPEN, "looking takes no trial"

    assert board.begin_call("numerals")

    assert board.state_of("numerals") is OPEN
    assert not board.begin_call("numerals")


def test_a_trial_that_is_answered_closes_the_circuit(board: HealthBoard, time: Time) -> None:
    _fail(board, 3)
    time.now += 15
    board.record(make_candidate(), call=board.begin_call("numerals"))

    assert board.state_of("numerals") is CLOSED
    _fail(board, 2)
    assert board.state_of("numerals") is CLOSED


def test_every_failed_trial_doubles_the_cool_down_up_to_a_limit(board: HealthBoard, time: Time) -> None:
    _fail(board, 3)
    for cool_down in (15, 30, 40, 40):
        time.now += cool_down - 0.1
        assert board.state_of("numerals") is OPEN
        time.now += 0.1
        trial = board.begin_call("numerals")
        board.record(make_failure(), call=trial)
        assert board.state_of("numerals") is OPEN


def test_calls_that_began_before_it_opened_prolong_nothing(board: HealthBoard, time: Time) -> None:
    begun = [board.begin_call("numerals") for _ in range(5)]
    _fail(board, 3)
    time.now += 10
    for call in begun:
        board.record(make_failure(), call=call)
    time.now += 5

    assert board.state_of("numerals") is HALF_OPEN


def test_a_late_answer_closes_an_open_circuit(board: HealthBoard) -> None:
    _fail(board, 3)
    board.record(make_candidate())

    assert board.state_of("numerals") is CLOSED


def test_a_trial_without_a_verdict_makes_room_for_the_next(board: HealthBoard, time: Time) -> None:
    _fail(board, 3)
    time.now += 15
    board.record(make_failure(at_fault=False), call=board.begin_call("numerals"))

    assert board.state_of("numerals") is HALF_OPEN
    assert board.begin_call("numerals")


def test_a_trial_whose_caller_went_away_is_forgotten(board: HealthBoard, time: Time) -> None:
    _fail(board, 3)
    time.now += 15
    board.begin_call("numerals")
    time.now += 99.9
    assert board.state_of("numerals") is OPEN
    time.now += 0.1

    assert board.state_of("numerals") is HALF_OPEN


@pytest.mark.parametrize("late", [make_failure(at_fault=False), make_failure()], ids=["cancelled", "timed out"])
def test_a_call_from_before_it_opened_does_not_end_the_trial(board: HealthBoard, time: Time, late: ExpertFailure) -> None:
    stale = board.begin_call("numerals")
    _fail(board, 3)
    time.now += 15
    trial = board.begin_call("numerals")

    board.record(late, call=stale)

    assert board.begin_call("numerals") is None, "the trial still runs"
    board.record(make_failure(at_fault=False), call=trial)
    assert board.state_of("numerals") is HALF_OPEN, "and nothing was held against the expert"


def test_a_call_from_before_it_opened_takes_no_trial_away(board: HealthBoard, time: Time) -> None:
    stale = board.begin_call("numerals")
    _fail(board, 3)
    time.now += 15

    board.record(make_failure(), call=stale)

    assert board.state_of("numerals") is HALF_OPEN


def test_a_forgotten_trial_does_not_end_the_one_after_it(board: HealthBoard, time: Time) -> None:
    _fail(board, 3)
    time.now += 15
    forgotten = board.begin_call("numerals")
    time.now += 100
    board.begin_call("numerals")

    board.record(make_failure(at_fault=False), call=forgotten)

    assert board.state_of("numerals") is OPEN


def test_a_trial_that_fails_after_it_was_forgotten_counts_while_no_other_runs(board: HealthBoard, time: Time) -> None:
    _fail(board, 3)
    time.now += 15
    trial = board.begin_call("numerals")
    time.now += 100

    board.record(make_failure(), call=trial)

    time.now += 29
    assert board.state_of("numerals") is OPEN


def test_a_check_that_fails_after_the_cool_down_opens_it_again(board: HealthBoard, time: Time) -> None:
    """A steward's check asks nobody whether it may begin, and what it finds is news."""
    _fail(board, 3)
    time.now += 15

    board.record(make_failure())

    assert board.state_of("numerals") is OPEN


def test_experts_are_judged_apart_and_forgotten_apart(board: HealthBoard) -> None:
    for failure in [make_failure("a"), make_failure("b")] * 3:
        board.record(failure)
    board.forget(["a", "unknown"])

    assert board.state_of("a") is CLOSED
    assert board.state_of("b") is OPEN


def test_healthy_experts_take_no_memory(board: HealthBoard) -> None:
    for number in range(100):
        board.record(make_candidate(f"expert-{number}"), call=board.begin_call(f"expert-{number}"))

    assert board._circuits == {}
