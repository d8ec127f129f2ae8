"""Counting up and showing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.evaluation import QuestionOutcome
from evaluation.intervals import wilson_interval
from evaluation.report import Table, accuracy_json, percent
from evaluation.summary import Accuracy, summarise

OUTCOMES = [
    QuestionOutcome("a", "q1", skills=("x", "y"), category="k", correct=True),
    QuestionOutcome("a", "q2", skills=("x",), category="k", correct=False),
    QuestionOutcome("a", "q3", category="k", error="expert_timeout: slow"),
    QuestionOutcome("b", "q1", category="k", correct=True),
]


def test_wilson_agrees_with_published_values() -> None:
    """8 of 10 gives 0.490 to 0.943 at 95 % (Brown, Cai and DasGupta's formula 4)."""
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_stays_within_bounds(counts: tuple[int, int]) -> None:
    low, high = wilson_interval(*counts)

    assert 0 <= low <= counts[0] / counts[1] <= high <= 1
    assert low < high


def test_a_question_counts_for_each_skill_but_once_overall_and_a_failure_for_none() -> None:
    summary = summarise(OUTCOMES)["a"]

    assert (summary.overall.num_answered, summary.overall.num_correct, summary.num_failed) == (2, 1, 1)
    assert {skill: (count.num_answered, count.num_correct) for skill, count in summary.by_skill.items()} == {"x": (2, 1), "y": (1, 1)}


def test_without_skills_the_category_counts() -> None:
    assert list(summarise(OUTCOMES)["b"].by_skill) == ["k"]


def test_an_expert_that_was_given_up_before_any_answer_is_shown() -> None:
    summary = summarise([], stopped={"a": "no key"})["a"]

    assert (summary.overall.share, summary.stopped) == (None, "no key")


def test_the_plain_table_is_aligned() -> None:
    """Names to the left, figures to the right, nothing behind the last column."""
    cells = ((e, percent(summary.overall, interval=True)) for e, summary in summarise(OUTCOMES).items())
    lines = Table("Right", ("expert", "overall"), tuple(cells)).plain().splitlines()

    assert lines == [
        "Right",
        "expert             overall",
        "--------------------------",
        "a          50.0 [9.5–90.5]",
        "b       100.0 [20.7–100.0]",
    ]


def test_nothing_answered_is_a_dash() -> None:
    assert percent(None) == percent(Accuracy(0, 0)) == "–"


def test_the_json_form_is_json() -> None:
    told = json.loads(json.dumps(accuracy_json(summarise(OUTCOMES)["a"].overall)))

    assert (told["num_answered"], told["num_correct"], told["accuracy"]) == (2, 1, 0.5)
    assert told["low"] < 0.5 < told["high"]
