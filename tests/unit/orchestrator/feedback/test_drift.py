"""Alarms when an expert gets worse, and when it is as good as before again."""

from __future__ import annotations

from random import Random

import pytest

from orchestrator.feedback.drift import CumulativeSum, DriftLimits, DriftTest


def alarms(test: DriftTest, scores: list[float]) -> list[int]:
    return [number for number, score in enumerate(scores) if test.take(score) is not None]


def answers(rng: Random, accuracy: float, num: int) -> list[float]:
    return [float(rng.random() < accuracy) for _ in range(num)]


def test_a_good_expert_that_answers_wrong_raises_an_alarm_within_a_few_answers() -> None:
    test = DriftTest()
    assert alarms(test, [1.0] * 40) == []

    after = alarms(test, [0.0] * 10)

    assert after[0] <= 5
    assert test.drifted


@pytest.mark.parametrize(("before", "after", "within"), [(0.98, 0.05, 12), (0.95, 0.3, 25), (0.7, 0.2, 120)])
def test_drops_are_found_on_streams_of_chance(before: float, after: float, within: int) -> None:
    found = []
    for seed in range(50):
        rng, test = Random(seed), DriftTest()
        if alarms(test, answers(rng, before, 100)):
            continue
        found += alarms(test, answers(rng, after, within))[:1]

    assert len(found) >= 47


@pytest.mark.parametrize("accuracy", [0.95, 0.9, 0.7, 0.5, 0.3, 0.1])
def test_false_alarms_are_rare_whatever_is_usual(accuracy: float) -> None:
    """On 60,000 answers: fewer than one in two thousand, an alarm and its way back counted as two."""
    num = sum(len(alarms(DriftTest(), answers(Random(seed), accuracy, 2000))) for seed in range(30))

    assert num <= 60_000 / 2000


def test_there_is_no_alarm_before_what_is_usual_is_known() -> None:
    assert alarms(DriftTest(), [1.0] * 10 + [0.0] * 9) == []


def test_an_expert_that_is_mended_is_noticed_and_its_next_drop_too() -> None:
    test = DriftTest()
    alarms(test, [1.0] * 40 + [0.0] * 20)

    recovered = alarms(test, [1.0] * 10)
    assert len(recovered) == 1
    assert recovered[0] <= 6
    assert not test.drifted
    assert len(alarms(test, [0.0] * 10)) == 1


def test_an_alarm_tells_how_many_answers_are_from_after_the_change() -> None:
    test = DriftTest()
    for _ in range(40):
        test.take(1.0)
    found = next(since for _ in range(10) if (since := test.take(0.0)) is not None)

    assert found == 4


def test_a_score_between_right_and_wrong_counts_in_proportion() -> None:
    whole, half = CumulativeSum(), CumulativeSum()
    whole.add(0.0, usual=0.9, changed=0.45)
    half.add(0.25, usual=0.9, changed=0.45)

    assert 0 < half.value < whole.value


def test_limits_can_make_it_slower() -> None:
    slow = DriftTest(DriftLimits(threshold=20.0))
    alarms(slow, [1.0] * 40)

    assert alarms(slow, [0.0] * 8) == []
