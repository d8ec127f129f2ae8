"""Ridge: updates are exact, missing outcomes count for nothing, the penalty is chosen on questions left out."""

from __future__ import annotations

import numpy as np
import pytest

from domain.errors import InvalidRequest
from domain.outcomes import OutcomeTable, floats
from routers.learned.base import Features, Floats
from routers.learned.ridge import RidgeModel, RidgeOptions, RidgeRouter

DIMENSIONS = 12


def problem(num_questions: int = 200, *, missing: float = 0.0, seed: int = 0) -> tuple[Features, Floats]:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((num_questions, DIMENSIONS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = (vectors @ rng.standard_normal((DIMENSIONS, 3)) + 0.3 * rng.standard_normal((num_questions, 3)) > 0).astype(float)
    scores[rng.random(scores.shape) < missing] = np.nan
    return Features(tuple(f"question {n}" for n in range(num_questions)), vectors.astype(np.float32)), scores


def part(features: Features, rows: slice) -> Features:
    return Features(features.texts[rows], features.vectors[rows])


def fit(features: Features, scores: Floats, **options: object) -> RidgeModel:
    table = OutcomeTable(features.texts, tuple("abc"[: scores.shape[1]]), floats(scores.ravel().tolist()))
    return RidgeRouter.with_options({"penalty": 2.0, "prior": 0.5, **options}).fit(features, table, seed=0)


@pytest.mark.parametrize("options", [{}, {"random_features": 40}], ids=["plain", "lifted"])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_updating_one_by_one_equals_a_refit(options: dict[str, object], missing: float) -> None:
    features, scores = problem(missing=missing)
    updated = fit(part(features, slice(0, 80)), scores[:80], **options)
    for row in range(80, 200):
        for column, expert_id in enumerate("abc"):
            if not np.isnan(scores[row, column]):
                updated = updated.updated(features.vectors[row], expert_id, float(scores[row, column]))
    asked, _ = problem(seed=7)

    np.testing.assert_allclose(updated.predict(asked), fit(features, scores, **options).predict(asked), atol=1e-6)


def test_what_a_forgetting_head_learns_is_the_ridge_of_weighted_answers() -> None:
    features, scores = problem(60)
    factor = 0.9
    model = fit(part(features, slice(0, 1)), scores[:1], forgetting=[factor])
    for row in range(1, 60):
        model = model.updated(features.vectors[row], "a", float(scores[row, 0]))
    design = np.column_stack([features.vectors.astype(np.float64), np.ones(60)])
    weights = factor ** np.arange(59, -1, -1)
    penalty = np.diag([2.0] * DIMENSIONS + [1.0])
    expected = np.linalg.solve((design * weights[:, None]).T @ design + penalty, (design * weights[:, None]).T @ (scores[:, 0] - 0.5))

    np.testing.assert_allclose(model.heads[0].columns[0].weights, expected, atol=1e-8)


def test_the_heads_are_averaged() -> None:
    features, scores = problem(60)
    asked, _ = problem(seed=7)

    def after_updates(forgetting: list[float]) -> Floats:
        model = fit(part(features, slice(0, 30)), scores[:30], forgetting=forgetting)
        for row in range(30, 60):
            model = model.updated(features.vectors[row], "b", float(scores[row, 1]))
        return 0.5 + model.lift(asked.vectors) @ np.mean([[c.weights for c in head.columns] for head in model.heads], axis=0).T

    both = after_updates([1.0, 0.8])
    np.testing.assert_allclose(both, (after_updates([1.0]) + after_updates([0.8])) / 2, atol=1e-9)


def test_the_penalty_that_is_chosen_predicts_best_when_questions_are_left_out_for_real() -> None:
    """The closed form of leaving one out is what leaving one out gives."""
    features, scores = problem(40)
    asked = fit(features, scores)
    left_out = np.empty_like(scores)
    for row in range(40):
        others = [n for n in range(40) if n != row]
        model = fit(Features(tuple(features.texts[n] for n in others), features.vectors[others]), scores[others])
        lifted = model.lift(features.vectors[[row]])
        left_out[row] = 0.5 + lifted @ np.stack([column.weights for column in model.heads[0].columns], axis=1)
    lifted = asked.lift(features.vectors)
    weights = np.stack([column.weights for column in asked.heads[0].columns], axis=1)
    leverage = np.einsum("nd,de,ne->n", lifted, asked.heads[0].columns[0].inverse, lifted)
    closed = scores - (scores - 0.5 - lifted @ weights) / (1 - leverage)[:, None]

    np.testing.assert_allclose(closed, left_out, atol=1e-8)


def test_noise_is_penalised_more_than_a_clear_rule() -> None:
    features, _ = problem(300)
    rng = np.random.default_rng(3)
    clear = (features.vectors[:, :3] > 0).astype(float)
    noise = (rng.random((300, 3)) < [0.5, 0.6, 0.7]).astype(float)

    assert fit(features, clear, penalty=None).penalty < fit(features, noise, penalty=None).penalty


def test_an_expert_is_a_column() -> None:
    features, scores = problem(missing=0.2)
    table = OutcomeTable(features.texts, ("a", "b", "c"), floats(scores.ravel().tolist()))
    grown = fit(features, scores[:, :2]).with_expert("c", features, table)

    np.testing.assert_allclose(grown.predict(features), fit(features, scores).predict(features), atol=1e-7)


def test_a_score_outside_0_to_1_is_refused() -> None:
    features, scores = problem()
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        fit(features, scores).updated(features.vectors[0], "a", 1.5)


def test_an_unknown_expert_cannot_be_updated() -> None:
    features, scores = problem()
    with pytest.raises(InvalidRequest, match="no expert 'd'"):
        fit(features, scores).updated(features.vectors[0], "d", 1.0)


def test_options_stand_for_themselves() -> None:
    assert RidgeRouter(RidgeOptions(penalty=2.0)).name == "ridge"
