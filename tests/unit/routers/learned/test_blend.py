"""Blend: what its parts know is put together, weights follow what was right, and trees in arrays say what trees say."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from domain.errors import InvalidRequest
from domain.outcomes import OutcomeTable, floats
from routers.learned.base import Features, Floats
from routers.learned.blend import BlendModel, BlendRouter
from routers.learned.catalogue import ESTIMATORS, estimator
from routers.learned.design import Design
from routers.learned.forest import Forest
from routers.learned.gated import GatedRidge
from routers.learned.kinds import Kinds

DIMENSIONS = 24
SUBJECTS = ("law", "birds")


def questions(count: int, *, seed: int) -> tuple[Features, list[str], Floats]:
    """Questions about law or birds, that end with a question mark or not; and what three experts score.

    Which expert is right depends on both: ``asker`` on birds that are asked about, ``teller`` on birds that are not, ``lawyer`` on law. The
    vectors know the subject only.
    """
    rng = np.random.default_rng(seed)
    subject, asked = rng.integers(2, size=count), rng.integers(2, size=count)
    vectors = np.eye(2, DIMENSIONS)[subject] + 0.1 * rng.standard_normal((count, DIMENSIONS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = tuple(f"item {n} on {SUBJECTS[s]}{'?' if a else '.'}" for n, s, a in zip(range(count), subject, asked, strict=True))
    winner = np.where(subject == 0, 2, np.where(asked == 1, 0, 1))
    scores = np.where(winner[:, None] == np.arange(3), 0.9, 0.3) > rng.random((count, 3))
    return Features(texts, vectors.astype(np.float32)), [SUBJECTS[s] for s in subject], np.column_stack([scores, winner]).astype(float)


def table_of(features: Features, subjects: list[str] | None, scores: Floats) -> OutcomeTable:
    ids = ("asker", "teller", "lawyer")[: scores.shape[1]]
    return OutcomeTable(features.texts, ids, floats(scores.ravel().tolist()), categories=tuple(subjects) if subjects else ())


def fit(count: int = 400, *, labelled: bool = True, seed: int = 0, **options: object) -> BlendModel:
    features, subjects, scores = questions(count, seed=1)
    return BlendRouter.with_options({"trees": 40, **options}, catalogue=ESTIMATORS).fit(
        features, table_of(features, subjects if labelled else None, scores[:, :3]), seed=seed
    )


@pytest.mark.parametrize("labelled", [True, False])
def test_the_surface_decides_where_vectors_cannot(labelled: bool) -> None:
    asked, _, scores = questions(300, seed=2)
    right = (fit(labelled=labelled).predict(asked).argmax(axis=1) == scores[:, 3]).mean()

    assert right > 0.9
    assert (fit(labelled=labelled, components=["ridge"]).predict(asked).argmax(axis=1) == scores[:, 3]).mean() < 0.85


def test_scores_are_calibrated_not_only_ordered() -> None:
    asked, _, scores = questions(1000, seed=3)
    predicted = fit(1000).predict(asked)
    best = np.take_along_axis(predicted, scores[:, 3:].astype(int), axis=1)

    assert best.mean() == pytest.approx(0.9, abs=0.08)
    assert predicted.mean() == pytest.approx(0.5, abs=0.03)


def test_what_was_right_weighs_most() -> None:
    """The forest sees the surface, random guesses see nothing."""
    model = fit(components=["forest", "random"])

    assert model.weights[0] > 0.7
    assert model.weights[1] < 0.15


def test_given_weights_are_taken_as_shares() -> None:
    model = fit(components=["kinds", "forest"], weights={"kinds": 1, "forest": 3})

    np.testing.assert_allclose(model.weights, [0.25, 0.75])


def test_a_component_alone_with_weight_one_chooses_as_it_would_by_itself() -> None:
    features, subjects, scores = questions(200, seed=1)
    table = table_of(features, subjects, scores[:, :3])
    asked, _, _ = questions(100, seed=4)
    alone = estimator("neighbours", {"k": 20}).fit(features, table, seed=0).predict(asked)
    blended = estimator(
        "blend",
        {
            "components": ["neighbours"],
            "weights": {"neighbours": 1},
            "component_options": {"neighbours": {"k": 20}},
            "shrink_unfamiliar": False,
        },
    ).fit(features, table, seed=0)

    np.testing.assert_allclose(blended.predict(asked), alone, atol=1e-5)


def test_the_seed_decides_and_nothing_else() -> None:
    asked, _, _ = questions(50, seed=2)

    np.testing.assert_array_equal(fit(seed=3).predict(asked), fit(seed=3).predict(asked))
    assert not np.array_equal(fit(seed=3).predict(asked), fit(seed=4).predict(asked))


def test_an_explanation_names_the_kind_the_components_and_what_moved_the_trees() -> None:
    features, _, _ = questions(20, seed=2)
    row = next(n for n, text in enumerate(features.texts) if text.endswith("birds?"))
    told = fit().explain(features, row)

    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["category"] == "birds"
    assert told["kinds"][0]["share"] > 0.8
    assert set(told["components"]) == {"gated", "forest", "wording"}
    assert told["components"]["forest"]["deviation"]["asker"] > 0.2
    assert told["reasons"]["expert"] == "asker"
    columns = {reason["column"]: reason["adds"] for reason in told["reasons"]["columns"]}
    assert max(value for name, value in columns.items() if "?" in name or "ends with" in name) > 0.05


def test_without_categories_kinds_are_clusters_and_no_category_is_told() -> None:
    features, _, _ = questions(5, seed=2)
    told = fit(labelled=False).explain(features, 0)

    assert "category" not in told
    assert told["kinds"][0]["kind"].startswith("cluster ")


def test_an_early_view_is_used_where_it_tells_what_vectors_do_not() -> None:
    rng = np.random.default_rng(0)
    topic, wording = rng.integers(2, size=600), rng.integers(2, size=600)

    def view(of: np.typing.NDArray[np.int64]) -> Floats:
        vectors = np.eye(2, DIMENSIONS)[of] + 0.1 * rng.standard_normal((600, DIMENSIONS))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    features = Features(("the same text",) * 600, view(topic), view(wording))
    scores = (wording[:, None] == np.arange(2)).astype(float)
    train, test = np.arange(400), np.arange(400, 600)
    table = OutcomeTable(features.texts, ("a", "b"), floats(scores.ravel().tolist()))
    router = BlendRouter.with_options({"trees": 20}, catalogue=ESTIMATORS)
    both = router.fit(features.rows(train), table.rows(train.tolist()), seed=0)
    late = router.fit(Features(features.texts[:400], features.vectors[:400]), table.rows(train.tolist()), seed=0)
    without = Features(features.texts[400:], features.vectors[400:])

    assert (both.predict(features.rows(test)).argmax(axis=1) == wording[400:]).mean() > 0.98
    assert (late.predict(without).argmax(axis=1) == wording[400:]).mean() < 0.65
    assert np.isfinite(both.predict(without)).all()


def test_a_decision_takes_a_small_part_of_a_fit() -> None:
    """Two milliseconds of seconds: nothing of the fit is done again. In processor time, so that nothing else that runs counts."""
    features, _, _ = questions(60, seed=2)
    began = time.process_time()
    model = fit(1500, trees=150)
    fit_s = time.process_time() - began
    seconds = []
    for row in range(60):
        one = features.rows([row])
        began = time.process_time()
        model.predict(one)
        seconds.append(time.process_time() - began)

    assert min(seconds) < fit_s / 20


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"components": ["forrest"]}, "did you mean 'forest'"),
        ({"components": ["blend"]}, "'blend'"),
        ({"components": []}, "list of 1 to"),
        ({"components": ["forest", "forest"]}, "different names"),
        ({"components": "forest"}, "list of 1 to"),
        ({"weights": {"ridge": 1}}, "none of the components"),
        ({"weights": {"forest": -1}}, "0 or more"),
        ({"weights": {"forest": 0}}, "above 0"),
        ({"weights": [1, 2]}, "object of components and weights"),
        ({"component_options": {"forest": {"trees": 3}}}, "takes no options"),
        ({"component_options": {"ridge": 3}}, "object of options"),
        ({"components": ["ridge"], "component_options": {"ridge": {"penaltie": 3}}}, "penalty"),
        ({"trees": 0}, "between 1"),
        ({"shrink_unfamiliar": 1}, "true or false"),
        ({"tree": 10}, "did you mean 'trees'"),
    ],
)
def test_wrong_options_say_what_to_do(options: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        estimator("blend", options)


# --- parts ----------------------------------------------------------------------------------------------------------


def tree_problem(count: int = 600) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((count, 6)).astype(np.float32)
    targets = np.column_stack([np.sign(rows[:, 0]), rows[:, 1] > rows[:, 2]]) + 0.1 * rng.standard_normal((count, 2))
    return rows, targets


def test_flat_trees_say_what_scikit_learn_says() -> None:
    from sklearn.tree import ExtraTreeRegressor

    rows, targets = tree_problem()
    trees = [ExtraTreeRegressor(min_samples_leaf=3, random_state=n).fit(rows, targets) for n in range(5)]
    flat = Forest._flat([tree.tree_ for tree in trees], 2)
    asked = np.random.default_rng(1).standard_normal((400, 6)).astype(np.float32)
    # On a threshold, too, a row goes where scikit-learn sends it.
    asked[0] = rows[0]
    asked[1, :] = np.float32(trees[0].tree_.threshold[0])

    np.testing.assert_allclose(flat.predict(asked), np.mean([tree.predict(asked) for tree in trees], axis=0), atol=1e-6)


def test_trees_are_judged_by_rows_that_they_were_not_grown_on() -> None:
    """On pure noise a tree that saw a row knows it; one that did not cannot."""
    rng = np.random.default_rng(0)
    rows, noise = rng.standard_normal((400, 5)).astype(np.float32), rng.standard_normal((400, 1))
    forest, left_out = Forest.grown(rows, noise, np.arange(400), num_trees=60, seed=0)

    assert np.corrcoef(forest.predict(rows)[:, 0], noise[:, 0])[0, 1] > 0.4
    assert np.corrcoef(left_out[:, 0], noise[:, 0])[0, 1] < 0.1


def test_reasons_add_up_to_the_prediction() -> None:
    rows, targets = tree_problem()
    forest, _ = Forest.grown(rows, targets, np.arange(10), num_trees=20, seed=0)
    for row in rows[:5]:
        added = forest.reasons(row, 0)
        assert forest.values[forest.roots, 0].mean() + added.sum() == pytest.approx(float(forest.predict(row[None])[0, 0]), abs=1e-5)
        assert np.abs(added).argmax() == 0


def test_an_added_output_of_a_forest_is_the_mean_of_its_leaves_and_moves_no_other() -> None:
    rows, targets = tree_problem(3000)
    forest, _ = Forest.grown(rows, targets[:, :1], np.arange(10), num_trees=20, seed=0)
    grown = forest.with_output(rows, targets[:, 0], 0.0)

    np.testing.assert_array_equal(grown.values[:, :1], forest.values)
    # The same target as the trees were grown for: the same means, but for the shrinkage and the rows a tree was not grown on.
    np.testing.assert_allclose(grown.predict(rows)[:, 1], forest.predict(rows)[:, 0], atol=0.2)
    empty = forest.with_output(rows[:0], targets[:0, 0], 0.25)
    np.testing.assert_allclose(empty.predict(rows)[:, 1], 0.25, atol=1e-6)


def test_left_out_predictions_of_the_gated_ridge_are_those_of_a_refit() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(3), size=40).astype(np.float32)
    directions = rng.standard_normal((40, 4)).astype(np.float32)
    targets = rng.standard_normal((40, 3))
    offsets = np.array([0.1, -0.1, 0.5])
    _, left_out = GatedRidge.fitted(shares, directions, targets, means=np.zeros((40, 3)), offsets=offsets, judged=np.arange(40))
    for row in (0, 17):
        rest = np.delete(np.arange(40), row)
        refit, _ = GatedRidge.fitted(
            shares[rest], directions[rest], targets[rest], means=np.zeros((39, 3)), offsets=offsets, judged=np.arange(0)
        )
        np.testing.assert_allclose(left_out[row], refit.predict(shares[[row]], directions[[row]])[0], atol=1e-4)


def test_an_added_column_of_the_gated_ridge_is_what_a_fit_gives() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(3), size=60).astype(np.float32)
    directions = rng.standard_normal((60, 4)).astype(np.float32)
    targets, offsets = rng.standard_normal((60, 3)), np.array([0.1, 0.3, 0.5])
    whole, _ = GatedRidge.fitted(shares, directions, targets, means=np.zeros((60, 3)), offsets=offsets, judged=np.arange(0))
    first, _ = GatedRidge.fitted(
        shares, directions, targets[:, [0, 2]], means=np.zeros((60, 2)), offsets=offsets[[0, 2]], judged=np.arange(0)
    )
    grown = first.with_column(shares, directions, targets[:, 1], 0.3)

    np.testing.assert_allclose(grown.predict(shares, directions), whole.predict(shares, directions), atol=1e-5)


def test_shares_of_training_questions_do_not_know_their_label() -> None:
    """With labels that are pure chance, shares that had seen them would be right far too often."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 120)).astype(np.float32)
    labels = [("a", "b")[n] for n in rng.integers(2, size=300)]
    kinds, shares = Kinds.learnt(rows, labels, seed=0)
    told = np.array([kinds.names[n] == label for n, label in zip(shares.argmax(axis=1), labels, strict=True)])
    knowing = np.array([kinds.names[n] == label for n, label in zip(kinds.shares(rows).argmax(axis=1), labels, strict=True)])

    assert told.mean() < 0.6
    assert knowing.mean() > 0.7


def test_many_categories_are_put_together_by_what_they_are_about() -> None:
    rng = np.random.default_rng(0)
    categories = [f"c{n % 60:02d}" for n in range(1200)]
    rows = (np.eye(30)[[(n % 60) // 2 for n in range(1200)]] + 0.05 * rng.standard_normal((1200, 30))).astype(np.float32)
    kinds, _ = Kinds.learnt(rows, categories, seed=0)
    group_of = {name: number for number, joined in enumerate(kinds.names) for name in joined.split(" / ")}

    assert len(kinds.names) == 24
    assert len(group_of) == 60
    # c00 and c01 are about the same thing, c02 and c03 too, and so on.
    assert np.mean([group_of[f"c{n:02d}"] == group_of[f"c{n + 1:02d}"] for n in range(0, 60, 2)]) > 0.9


def test_directions_do_not_depend_on_the_order_of_questions() -> None:
    features, _, _ = questions(300, seed=1)
    order = np.random.default_rng(0).permutation(300)
    design, rows = Design.of(features, seed=0)
    _, shuffled = Design.of(features.rows(order), seed=0)

    np.testing.assert_allclose(shuffled.late[:, :2], rows.late[order][:, :2], atol=1e-3)
    np.testing.assert_array_equal(design.rows(features).surface, rows.surface)
