"""Choosing a cascade's threshold."""

from __future__ import annotations

from random import Random

import pytest

from domain.errors import InvalidRequest
from domain.outcomes import OutcomeTable, floats
from evaluation.cascade import StageOutcome, calibrate, operating_point, stages_of, walk


def two(confidence: float, weak: float, strong: float) -> list[StageOutcome]:
    return [StageOutcome(weak, confidence, 1.0), StageOutcome(strong, None, 10.0)]


QUESTIONS = [two(0.9, 1, 1), two(0.8, 1, 1), two(0.6, 0, 1), two(0.3, 0, 1), two(0.2, 0, 0)]


def test_a_question_costs_every_expert_that_is_asked_for_it() -> None:
    assert walk(QUESTIONS[0], 0.5) == (1, 1.0, 1)
    assert walk(QUESTIONS[3], 0.5) == (1, 11.0, 2)


def test_when_the_last_has_not_answered_the_surest_before_it_counts() -> None:
    stages = [StageOutcome(1, 0.4, 1.0), StageOutcome(0, 0.2, 2.0), StageOutcome(1, None, 10.0, answered=False)]

    assert walk(stages, 0.9) == (1, 13.0, 3)
    assert walk([StageOutcome(1, None, 0.0, answered=False), StageOutcome(1, None, 5.0)], 0.0) == (1, 5.0, 2)


def test_means_are_over_the_questions_and_cost_is_a_share_of_the_last_expert_alone() -> None:
    point = operating_point(QUESTIONS, 0.7)

    assert (point.accuracy, point.escalation_rate) == (0.8, 0.6)
    assert point.cost == pytest.approx((5 * 1 + 3 * 10) / 5)
    assert point.cost_share == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("target", "accuracy", "at_most"),
    [({}, 0.8, 1.1), ({"target_cost": 0.6}, 0.6, 0.6), ({"target_cost": 0.1}, 0.4, 0.1), ({"escalation_rate": 0.4}, 0.6, 0.5)],
)
def test_the_most_accurate_threshold_within_the_target_is_chosen_and_the_cheapest_of_equals(
    target: dict[str, float], accuracy: float, at_most: float
) -> None:
    found = calibrate(QUESTIONS, **target)

    assert found.chosen.accuracy == pytest.approx(accuracy)
    assert found.chosen.cost_share <= at_most
    assert found.last_alone.accuracy == pytest.approx(0.8)
    assert min(point.cost for point in found.curve if point.accuracy == found.chosen.accuracy) == found.chosen.cost


def test_no_threshold_can_beat_the_chosen_one() -> None:
    """Against every threshold tried by force, on random questions."""
    rng = Random(7)
    questions = [two(round(rng.random(), 2), float(rng.random() < 0.5), float(rng.random() < 0.8)) for _ in range(80)]
    best = max(operating_point(questions, step / 1000).accuracy for step in range(1001))

    assert calibrate(questions).chosen.accuracy == pytest.approx(best)


def test_targets_that_cannot_be_met_or_contradict_each_other_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"even the lowest costs 0\.10"):
        calibrate(QUESTIONS, target_cost=0.05)
    with pytest.raises(InvalidRequest, match="one target"):
        calibrate(QUESTIONS, target_cost=0.5, escalation_rate=0.5)
    with pytest.raises(InvalidRequest, match="there are none"):
        calibrate([])


def test_an_outcome_table_with_confidences_is_a_cascade_too() -> None:
    table = OutcomeTable(("q1", "q2"), ("small", "large"), floats([1, 1, 0, float("nan")]), usd=floats([0.1, 1.0, 0.1, float("nan")]))
    stages = stages_of(table, ["small", "large"], {"small": [0.9, 0.4]})

    assert [stage.confidence for stage in stages[0]] == [0.9, None]
    assert stages[1][1].answered is False
    assert operating_point(stages, 0.5).accuracy == 0.5
    with pytest.raises(InvalidRequest, match="no expert 'huge'"):
        stages_of(table, ["small", "huge"], {"small": [0.9, 0.4]})
    with pytest.raises(InvalidRequest, match="one confidence"):
        stages_of(table, ["small", "large"], {"small": [0.9]})
