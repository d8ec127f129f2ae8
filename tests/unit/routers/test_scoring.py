"""Counts to scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from routers.scoring import Counts, overall_accuracy, shrunk_scores, skill_accuracy, symbolic_scores


def counts_of(
    correct: Sequence[Sequence[float]],
    answered: Sequence[Sequence[float]],
    *,
    declared: Sequence[Sequence[float]] | None = None,
    totals: Sequence[float] | None = None,
) -> Counts:
    """Counts whose overall figures are the sums over the given skills."""
    right, asked = np.array(correct, float), np.array(answered, float)
    claims = np.zeros_like(right) if declared is None else np.array(declared, float)
    symbolic = (2 * right - asked).sum(axis=1) if totals is None else np.array(totals, float)
    return Counts(asked, right, claims, asked.sum(axis=1), right.sum(axis=1), symbolic)


def shrunk(counts: Counts, weights: Sequence[float], *, global_weight: float = 0.01) -> list[float]:
    overall = overall_accuracy(counts, pool_accuracy=0.3)
    shares = np.array(weights, float)
    accuracy = skill_accuracy(counts, overall, shares, prior_strength=1, declared_strength=2)
    return [float(score) for score in shrunk_scores(accuracy, overall, shares, global_weight=global_weight)]


SPECIALIST, GENERALIST = 0, 1
SPECIALISTS = counts_of([[97, 5, 5, 5], [60, 60, 60, 60]], [[100] * 4] * 2)
"""One that is right in 97 % of one skill and 5 % of three others, and one that is right in 60 % everywhere."""


def test_the_specialist_wins_on_its_ground_and_the_generalist_elsewhere() -> None:
    on_ground = shrunk(SPECIALISTS, [1, 0, 0, 0])
    elsewhere = shrunk(SPECIALISTS, [0, 1, 0, 0])

    assert on_ground[SPECIALIST] > on_ground[GENERALIST]
    assert elsewhere[GENERALIST] > elsewhere[SPECIALIST]


def test_the_papers_global_weight_would_send_everything_to_the_generalist() -> None:
    scores = shrunk(SPECIALISTS, [1, 0, 0, 0], global_weight=2.0)

    assert scores[GENERALIST] > scores[SPECIALIST]


def test_among_equals_on_the_skill_the_stronger_overall_wins() -> None:
    counts = counts_of([[50, 10], [50, 40]], [[60, 60]] * 2)
    scores = shrunk(counts, [1, 0])

    assert scores[1] > scores[0]


def test_a_frequent_skill_does_not_drown_a_rare_one() -> None:
    """One expert is right in all of 10 rare questions, the other in 600 of 1000 of the frequent skill."""
    counts = counts_of([[10, 0], [0, 600]], [[10, 1000], [10, 1000]])
    scores = shrunk(counts, [0.7, 0.3])

    assert scores[0] > scores[1]


def test_a_declared_skill_makes_an_unmeasured_expert_a_candidate_but_not_the_best() -> None:
    counts = counts_of([[0, 0], [95, 5], [5, 5]], [[0, 0], [100, 100], [100, 100]], declared=[[1, 0], [0, 0], [0, 0]])
    scores = shrunk(counts, [1, 0])

    assert scores[1] > scores[0] > scores[2]


def test_a_claim_is_gone_after_wrong_answers() -> None:
    never, some, many = (shrunk(counts_of([[0]], [[n]], declared=[[1]], totals=[0]), [1])[0] for n in (0, 10, 100))

    assert never > 0.7
    assert some < 0.35
    assert many < 0.06


@pytest.mark.parametrize("right_of_200", [1, 20, 190])
def test_an_expert_that_was_never_measured_stands_behind_everybody_with_a_right_answer(right_of_200: int) -> None:
    counts = counts_of([[0, 0], [right_of_200, 10]], [[0, 0], [200, 200]], declared=[[0, 0], [0, 0]])
    scores = shrunk(counts, [0.7, 0.3])

    assert scores[1] > 1.5 * scores[0]
    assert scores[0] > 0


def test_an_expert_that_was_never_measured_goes_before_one_that_was_never_right() -> None:
    scores = shrunk(counts_of([[0, 0], [0, 1]], [[0, 0], [200, 200]]), [1, 0])

    assert scores[0] > scores[1]


def test_an_expert_that_was_measured_elsewhere_is_expected_to_be_what_it_was_there() -> None:
    scores = shrunk(counts_of([[0, 160], [60, 60]], [[0, 200], [200, 200]]), [1, 0])

    assert scores[0] == pytest.approx(0.8, abs=0.02)


def test_who_declares_a_part_of_the_query_is_trusted_with_the_rest_by_that_part() -> None:
    declared = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    counts = counts_of([[0] * 4] * 3 + [[50] * 4], [[0] * 4] * 3 + [[100] * 4], declared=[*declared, [0] * 4])
    most, little, nothing, measured = shrunk(counts, [0.9, 0.1, 0, 0])

    assert most > measured > little > nothing


def test_without_skills_the_overall_accuracy_is_the_score() -> None:
    counts = Counts(*(np.zeros((2, 0)) for _ in range(3)), np.array([100.0, 100.0]), np.array([80.0, 10.0]), np.zeros(2))
    scores = shrunk(counts, [])

    assert scores[0] > scores[1]


def test_nothing_known_gives_everybody_the_same_score() -> None:
    scores = shrunk(counts_of([[0], [0]], [[0], [0]]), [1])

    assert scores[0] == scores[1]
    assert 0 < scores[0] < 1


def test_symbolic_is_the_papers_formula_step_by_step() -> None:
    """S = (8, -2, 4), totals (10, 2, 6): strength (100, 4, 36) / 140, candidates S > 0."""
    counts = counts_of([[9], [4], [7]], [[10], [10], [10]], totals=[10, 2, 6])
    weights = np.array([8 * 100, 0, 4 * 36]) / 140

    assert symbolic_scores(counts) == pytest.approx(weights / weights.sum())


def test_symbolic_shifts_totals_when_one_is_negative() -> None:
    """Totals (3, -1) become (5, 1), strength (25, 1) / 26."""
    counts = counts_of([[4], [3]], [[5], [5]], totals=[3, -1])
    weights = np.array([3 * 25, 1 * 1])

    assert symbolic_scores(counts) == pytest.approx(weights / weights.sum())


def test_symbolic_shifts_suitability_when_nobody_is_positive() -> None:
    """S = (-4, -2) becomes (1, 3); equal totals give equal strength."""
    counts = counts_of([[0], [1]], [[4], [4]], totals=[2, 2])

    assert symbolic_scores(counts) == pytest.approx([1 / 4, 3 / 4])


def test_symbolic_counts_each_skill_once_whatever_its_weight() -> None:
    counts = counts_of([[5, 5], [6, 0]], [[5, 5], [6, 0]], totals=[1, 1])

    assert symbolic_scores(counts) == pytest.approx([10 / 16, 6 / 16])


def test_symbolic_without_any_count_is_uniform() -> None:
    assert symbolic_scores(counts_of([[0], [0]], [[0], [0]])) == pytest.approx([0.5, 0.5])
