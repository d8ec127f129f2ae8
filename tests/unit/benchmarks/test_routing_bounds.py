"""What bounds a router: luck is told from what could be foreseen, and a power law is found where there is one."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.latent_outcomes import Floats, Ints, LatentModel, ceiling, fit, held_out
from benchmarks.routing_bounds import best_of_task, closed, power_law
from evaluation.outcomes.splits import Split, k_folds

TASKS, EACH = 2, 500


def drawn(model: LatentModel, *, seed: int) -> tuple[Floats, Ints]:
    """Outcomes of ``EACH`` questions of each task."""
    rng = np.random.default_rng(seed)
    probabilities = model.probabilities(rng.standard_normal((EACH, model.rank)))
    return (rng.random(probabilities.shape) < probabilities).reshape(-1, probabilities.shape[2]).astype(float), np.repeat(
        np.arange(TASKS), EACH
    )


def true_model(strength: float) -> LatentModel:
    """Four experts, of whom two are good where the others are not."""
    loadings = strength * np.array([1.0, 1.0, -1.0, -1.0])
    return LatentModel(np.array([[0.5, 0.0, 0.5, 0.0], [1.0, -1.0, 0.0, 0.5]]), np.tile(loadings[:, None], (TASKS, 1, 1)))


def test_what_true_probabilities_would_win_is_found_from_single_draws() -> None:
    model, shares = true_model(2.0), np.full(TASKS, 1 / TASKS)
    outcomes, task = drawn(model, seed=1)
    found = ceiling(fit(outcomes, task, TASKS, rank=1, spread=1.0), shares)
    truth = ceiling(model, shares)

    assert found.oracle == pytest.approx(outcomes.max(axis=1).mean(), abs=0.02)
    assert found.one_right == pytest.approx((outcomes.sum(axis=1) == 1).mean(), abs=0.03)
    assert found.true_probabilities == pytest.approx(truth.true_probabilities, abs=0.03)
    assert truth.closed(truth.true_probabilities) > 2 * truth.closed(truth.perfect_task)


@pytest.mark.parametrize(("strength", "least", "most"), [(0.0, -0.02, 0.002), (2.0, 0.01, 0.5)])
def test_a_dimension_makes_unseen_questions_likelier_only_where_there_is_one(strength: float, least: float, most: float) -> None:
    outcomes, task = drawn(true_model(strength), seed=2)
    folds = [(np.array(s.train), np.array(s.test)) for s in k_folds(len(outcomes), 2, seed=0)]
    without, with_one = (held_out(outcomes, task, TASKS, rank=rank, spread=1.0, folds=folds) for rank in (0, 1))

    assert least < with_one - without < most
    assert with_one < 0


def test_where_all_is_luck_the_task_is_all_there_is_to_know() -> None:
    outcomes, task = drawn(true_model(0.0), seed=3)
    found = ceiling(fit(outcomes, task, TASKS, rank=0, spread=1.0), np.full(TASKS, 0.5))

    assert found.true_probabilities == pytest.approx(found.perfect_task)
    assert found.oracle > found.true_probabilities + 0.1


def test_a_power_law_is_found_and_a_falling_curve_is_flat() -> None:
    points = [(n, 0.4 - 0.9 * n**-0.4) for n in (300.0, 600.0, 1200.0, 3000.0)]
    law = power_law(points)

    assert law(30_000) == pytest.approx(0.4 - 0.9 * 30_000**-0.4, abs=1e-3)
    assert law.rms < 1e-3
    assert power_law([(100, 0.3), (200, 0.2)])(10_000) == pytest.approx(0.25)


def test_the_gap_is_counted_from_the_best_single_of_the_training_questions() -> None:
    scores = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    splits = [Split("test", (0, 1), (2, 3, 4))]

    assert closed(scores[[2, 3, 4], [1, 0, 0]], scores, splits) == pytest.approx((2 / 3 - 1 / 3) / (1 - 1 / 3))
    np.testing.assert_array_equal(best_of_task(scores, np.array([0, 1, 0, 1, 1]), splits), [0.0, 1.0, 0.0])
