"""The table of presets: order, figures, and the target."""

from __future__ import annotations

from benchmarks.presets import Row, table_of, target_of
from evaluation.summary import Accuracy


def row(strategy: str, questions: str, right: int) -> Row:
    return Row(strategy, questions, Accuracy(100, right), 1.0, 20.0, 10.0, 0.5, 0)


ROWS = [row("single", "test", 90), row("single", "multi-step", 10), row("openagi", "test", 89), row("openagi", "multi-step", 30)]


def test_the_best_over_both_sets_stands_first() -> None:
    lines = table_of(ROWS).plain().splitlines()

    assert [line.split()[0] for line in lines[-2:]] == ["openagi", "single"]


def test_several_steps_have_to_be_fifteen_points_above_one_expert() -> None:
    found = target_of(ROWS)
    assert found is not None
    assert found[0]
    assert found[1] == "openagi is 20.0 points above single on multi-step questions"

    missed = target_of([*ROWS[:3], row("openagi", "multi-step", 20)])
    assert missed is not None
    assert not missed[0]


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert target_of(ROWS[:2]) is None
