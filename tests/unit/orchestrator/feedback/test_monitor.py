"""What a log of feedback adds up to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.feedback import Feedback, Tally
from orchestrator.feedback.monitor import Monitor, MonitorLimits, fold


def event(number: int, scores: dict[str, float], **changes: Any) -> Feedback:
    made = Feedback(f"fb-{number}", f"r-{number}", f"t-{number}", float(number), {"correct": True}, scores, sequence=number)
    return replace(made, **changes)


def right(first: int, num: int, expert: str = "a", score: float = 1.0, **changes: Any) -> list[Feedback]:
    return [event(number, {expert: score}, **changes) for number in range(first, first + num)]


def view_of(events: list[Feedback], limits: MonitorLimits | None = None) -> Any:
    return fold(events, limits)[0].view(1).experts


def test_counts_are_kept_by_expert_skill_and_category() -> None:
    found = view_of(
        [
            event(1, {"a": 1.0, "b": 0.0}, skills=(("addition", 0.75), ("units", 0.25)), category="maths"),
            event(2, {"a": 0.0}, skills=(("addition", 1.0),), category="maths"),
        ]
    )

    assert found["a"].overall == Tally(2, 1)
    assert found["a"].by_skill == {"addition": Tally(1.75, 0.75), "units": Tally(0.25, 0.25)}
    assert found["b"].by_category == {"maths": Tally(1, 0)}


def test_what_was_taken_back_counts_for_nothing() -> None:
    taken_back = replace(event(2, {"a": 0.0}), rolled_back_at=9.0)

    assert view_of([event(1, {"a": 1.0}), taken_back]) == view_of([event(1, {"a": 1.0})])


def test_accuracy_is_over_the_last_answers_and_surprise_against_what_was_expected_before_they_were_learnt() -> None:
    limits = MonitorLimits(window=4)
    found = view_of([*right(1, 10, score=0.0), *right(11, 4, expected={"a": 0.5})], limits)["a"]

    assert (found.accuracy, found.window, found.num_feedback) == (1.0, 4, 14)
    assert found.surprise == pytest.approx(0.25)


def test_after_an_alarm_only_what_came_after_the_change_is_learnt_from() -> None:
    found = view_of([*right(1, 40), *right(41, 5, score=0.0)])["a"]

    assert found.drifted
    assert found.drifted_at == 44.0, "the fourth wrong answer"
    assert found.overall == Tally(5, 0)
    assert found.usual == 1.0
    assert found.num_alarms == 1


def test_an_expert_that_is_mended_begins_anew_too() -> None:
    found = view_of([*right(1, 40), *right(41, 10, score=0.0), *right(51, 6)])["a"]

    assert not found.drifted
    assert found.overall.accuracy == 1.0
    assert found.num_alarms == 2


def test_figures_that_have_settled_are_no_longer_changed_until_an_alarm() -> None:
    limits = MonitorLimits(freeze_below=0.01, freeze_after=20)
    settled = [*right(1, 200)]
    found = view_of(settled, limits)["a"]
    assert found.frozen
    num_learnt = found.overall.num_answered

    more = view_of([*settled, *right(201, 30)], limits)["a"]
    assert more.overall.num_answered == num_learnt
    assert more.num_feedback == 230

    alarmed = view_of([*settled, *right(201, 6, score=0.0)], limits)["a"]
    assert alarmed.drifted
    assert not alarmed.frozen
    assert alarmed.overall.accuracy == 0.0


def test_routers_are_not_taught_what_experts_whose_figures_have_settled_score() -> None:
    _, learnt = fold([*right(1, 200), event(201, {"a": 1.0, "b": 1.0})], MonitorLimits(freeze_below=0.01, freeze_after=20))

    assert learnt[0].scores == {"a": 1.0}
    assert learnt[-1].scores == {"b": 1.0}


def test_a_reset_forgets_one_expert() -> None:
    found = view_of([event(1, {"a": 1.0, "b": 1.0}), event(2, {}, resets="a"), event(3, {"a": 0.0})])

    assert found["a"].overall == Tally(1, 0)
    assert found["b"].overall == Tally(1, 1)


def test_taking_events_one_by_one_is_the_same_as_folding_them() -> None:
    events = [*right(1, 60), *right(61, 12, score=0.0), *right(73, 12)]
    monitor = Monitor()
    for one in events:
        monitor.take(one)

    assert monitor.view(1) == fold(events)[0].view(1)
