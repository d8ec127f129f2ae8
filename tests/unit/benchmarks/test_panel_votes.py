"""Votes on outcomes without answers: what is assumed of wrong ones is what they do, and bounds hold."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

from benchmarks.panel_votes import BEST, LEVELS, UNIFORM, Fold, Routed, Trial, compared, profiles_of, texts_of, wrong_answers
from domain.outcomes import OutcomeTable
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision, ScoredExpert
from domain.skills import SkillCount, SkillMatch, SkillProfile
from evaluation.comparison.agreement import agreement

EXPERTS = ("a", "b", "c", "d", "e")


@pytest.mark.parametrize(("assumption", "share"), [*((level, float(level)) for level in LEVELS), (UNIFORM, 1 / 3)])
def test_wrong_experts_agree_as_often_as_was_assumed(assumption: str, share: float) -> None:
    num = 4000
    scores = np.zeros((num, 3))
    said = texts_of(scores, wrong_answers(assumption, np.full(num, 4), 3, seed=1))

    assert agreement(said, scores).share == pytest.approx(share, abs=0.02)


def test_profiles_count_the_training_questions_by_task() -> None:
    scores = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    found = profiles_of(scores, ["sums", "sums", "facts", "facts"], ["a", "b"], [0, 1, 2])

    assert found["a"].by_skill == {"sums": SkillCount(2, 2), "facts": SkillCount(1, 0)}
    assert found["b"].overall == SkillCount(3, 2)


def test_ways_are_compared_on_the_same_questions() -> None:
    """Every tenth question is won, none is lost: far from chance, although both ways' own intervals overlap."""
    base = np.tile([1.0, 0.0], 200)
    better = np.where(np.arange(400) % 20 == 1, 1.0, base)
    found = compared({"vote": base, "better": better, "same": base}, to="vote")

    assert found["better"].gain == pytest.approx(5.0)
    assert found["better"].gain_interval[0] > 2
    assert found["better"].p < 1e-4
    assert found["better"].interval[0] < found["vote"].interval[1]
    assert (found["same"].gain, found["same"].p) == (0.0, 1.0)


def trial(rows: list[list[float]], accuracies: dict[str, float]) -> Trial:
    """Experts in the order of *accuracies*; who is right on what by *rows*."""
    flat = array("f", [cell for row in rows for cell in row])
    table = OutcomeTable(tuple(map(str, range(len(rows)))), EXPERTS, flat, categories=("sums",) * len(rows))
    counts = {name: SkillCount(1000, round(1000 * share)) for name, share in accuracies.items()}
    profiles = {name: SkillProfile(name, {"sums": count}, count) for name, count in counts.items()}
    decision = RoutingDecision(
        "skills",
        tuple(accuracies),
        tuple(ScoredExpert(name, share, True) for name, share in accuracies.items()),
        skills=(SkillMatch("sums", 0.9, 1.0),),
    )
    snapshot = RegistrySnapshot(1, 1, {}, {}, {}, profiles, {})
    tests = tuple(Routed(number, decision, snapshot, tuple(accuracies)) for number in range(len(rows)))
    return Trial(table, [[Fold(tuple(range(len(rows))), tests)]], draws=1)


def test_two_wrong_experts_outvote_a_better_one_only_by_heads_and_only_where_they_agree() -> None:
    found = trial([[1.0, 0.0, 0.0, 0.0, 0.0]], {"a": 0.95, "b": 0.6, "c": 0.6, "d": 0.55, "e": 0.55})
    same, differ = found.worths("1", 3), found.worths("0", 3)

    assert (same["vote"][0], same["measured-vote"][0], same[BEST][0]) == (0.0, 1.0, 1.0)
    assert (differ["vote"][0], differ["measured-vote"][0], differ["routed first, alone"][0]) == (1.0, 1.0, 1.0)


def test_two_right_experts_lose_to_a_better_one_unless_it_is_known_that_mistakes_never_agree() -> None:
    rows = [[0.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]]
    found = trial(rows, {"a": 0.95, "b": 0.6, "c": 0.6, "d": 0.55, "e": 0.55}).worths("0", 3)

    assert (found["measured-vote"][0], found["measured-vote, alike"][0], found["vote"][0]) == (0.0, 1.0, 1.0)


def test_what_is_assumed_of_options_is_asked_of_multiple_choice_only() -> None:
    found = trial([[1.0] * 5], {"a": 0.95, "b": 0.6, "c": 0.6, "d": 0.55, "e": 0.55}).worths(UNIFORM, 3)

    assert np.isnan(found["vote"]).all()
