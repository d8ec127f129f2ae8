"""Counting up and showing."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.evaluation import QuestionOutcome
from domain.skills import AggregatorProfile, SkillCount
from evaluation.intervals import wilson_interval
from evaluation.report import accuracy_table, aggregator_table, skill_table, summaries_json
from evaluation.summary import summarise

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


def test_the_plain_table_is_aligned_and_sorted_best_first() -> None:
    lines = accuracy_table(summarise(OUTCOMES, stopped={"a": "slow"})).plain().splitlines()

    assert [line.split()[0] for line in lines[3:]] == ["b", "a"]
    assert "50.0 [9.5–90.5]" in lines[4]
    assert lines[4].endswith("slow")
    assert lines[1].index("overall") + len("overall") == lines[4].index("90.5]") + len("90.5]")


def test_the_rich_table_shows_brackets_as_they_are() -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=100)
    console.print(accuracy_table(summarise(OUTCOMES)).rich())

    assert "50.0 [9.5–90.5]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_every_skill_has_a_row() -> None:
    assert [row[:2] for row in skill_table(summarise(OUTCOMES)).rows] == [("a", "y"), ("a", "x"), ("b", "k")]


def test_aggregators_are_shown_per_category_with_gaps() -> None:
    profiles = {
        "one": AggregatorProfile("one", {"k": SkillCount(4, 1)}, SkillCount(4, 1)),
        "two": AggregatorProfile("two", {"l": SkillCount(2, 2)}, SkillCount(2, 2)),
    }

    table = aggregator_table(profiles)

    assert table.columns == ("aggregator", "overall", "k", "l")
    assert [(row[0], *row[2:]) for row in table.rows] == [("two", "–", "100.0"), ("one", "25.0", "–")]


def test_the_json_form_is_json() -> None:
    [first, second] = json.loads(json.dumps(summaries_json(summarise(OUTCOMES))))

    assert (first["expert"], first["overall"]["accuracy"], first["num_failed"]) == ("a", 0.5, 1)
    assert second["by_category"]["k"]["num_correct"] == 1
