"""The table of presets: order, figures, and the targets."""

from __future__ import annotations

import pytest

from benchmarks.presets import Row, table_of, targets_of
from evaluation.summary import Accuracy


def row(strategy: str, questions: str, right: int, calls: float = 1.0) -> Row:
    return Row(strategy, questions, Accuracy(100, right), calls, 20.0, 10.0, 0.5, 0)


ROWS = [row("single", "test", 90), row("single", "multi-step", 10), row("openagi", "test", 89), row("openagi", "multi-step", 30)]


def test_the_best_over_both_sets_stands_first() -> None:
    lines = table_of(ROWS).plain().splitlines()

    assert [line.split()[0] for line in lines[-2:]] == ["openagi", "single"]


def test_several_steps_have_to_be_fifteen_points_above_one_expert() -> None:
    assert targets_of(ROWS) == [(True, "openagi is 20.0 points above single on multi-step questions")]

    ((is_reached, _),) = targets_of([*ROWS[:3], row("openagi", "multi-step", 20)])
    assert not is_reached


@pytest.mark.parametrize(("right", "calls", "is_reached"), [(60, 3.0, True), (50, 3.0, False), (60, 3.5, False)])
def test_what_is_recommended_has_to_beat_majority_vote_with_no_more_calls(right: int, calls: float, is_reached: bool) -> None:
    votes = [row("vote", "test", 90, 3.0), row("vote", "multi-step", 10, 3.0)]

    (told,) = targets_of([*votes, row("hdflow", "test", right, 2.0), row("hdflow", "multi-step", 50, 2 * calls - 2.0)])

    assert told[0] is is_reached
    assert f"hdflow answers {(right + 50) / 2:.1f} % of all questions with {calls:.1f} calls each, majority vote 50.0 % with 3.0" in told[1]


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert targets_of(ROWS[:2]) == []
