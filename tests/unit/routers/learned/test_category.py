"""The category router: classify, trust or not, look up."""

from __future__ import annotations

import numpy as np
import pytest

from domain.errors import InvalidRequest
from domain.outcomes import OutcomeTable, floats
from routers.learned.base import Features
from routers.learned.category import CategoryModel, CategoryOptions, CategoryRouter
from routers.learned.category_classifier import softmax, validate

EXPERTS = ("poet", "clerk", "giant")
SIZES = {"poet": 1.0, "clerk": 2.0, "giant": 50.0}


def example(num: int = 60, *, noise: float = 0.1, seed: int = 0) -> tuple[Features, OutcomeTable]:
    """Verse and tax questions; the poet and the clerk are good at theirs, the giant is better than either at both."""
    rng = np.random.default_rng(seed)
    topics = np.arange(num) % 2
    vectors = np.eye(16)[topics] + noise * rng.standard_normal((num, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chances = np.array([[0.8, 0.2, 0.95], [0.2, 0.8, 0.95]])[topics]
    scores = (rng.random((num, 3)) < chances).astype(float)
    texts = tuple(f"question {n}" for n in range(num))
    table = OutcomeTable(texts, EXPERTS, floats(scores.ravel().tolist()), categories=tuple(("verse", "tax")[t] for t in topics))
    return Features(texts, vectors.astype(np.float32)), table


def fit(**options: object) -> CategoryModel:
    return CategoryRouter.with_options({"parameters_b": SIZES, **options}).fit(*example(), seed=0)


def test_a_budget_keeps_the_specialists_instead_of_the_giant() -> None:
    model = fit(budget_b=5)

    assert model.map.expert_of == {"tax": "clerk", "verse": "poet"}
    assert model.map.kept == ("poet", "clerk")
    assert (model.predict(example()[0])[:, 2] == 0).all()


def test_without_one_the_best_serves_everything() -> None:
    assert set(fit().map.expert_of.values()) == {"giant"}


def test_another_budget_makes_another_map_of_the_same_classifier() -> None:
    model = fit()
    smaller = model.with_options(CategoryOptions(parameters_b=SIZES, budget_b=2.0))

    assert smaller.classifier is model.classifier
    assert "giant" not in smaller.map.kept
    assert smaller.map.total is not None
    assert smaller.map.total <= 2.0


def test_a_new_expert_changes_the_map_and_not_the_classifier() -> None:
    features, table = example()
    model = fit(budget_b=5)
    scores = np.ones((len(table), 1))
    new = OutcomeTable(table.questions, ("wizard",), floats(scores.ravel().tolist()), categories=table.categories)
    grown = model.with_options(CategoryOptions(parameters_b={**SIZES, "wizard": 2.0}, budget_b=5)).with_expert("wizard", features, new)

    assert grown.classifier is model.classifier
    assert set(grown.map.expert_of.values()) == {"wizard"}
    assert set(grown.without_expert("wizard").map.expert_of.values()) == {"poet", "clerk"}


def test_an_unclear_query_goes_to_the_generalist() -> None:
    model = fit(budget_b=5, generalist="clerk", min_confidence=0.9)
    between = Features(("a tax on verse",), (np.eye(16)[[0]] + np.eye(16)[[1]]).astype(np.float32) / np.float32(np.sqrt(2)))
    clear = Features(("a sonnet",), np.eye(16, dtype=np.float32)[[0]])

    assert model.explain(between, 0)["fallback"] is True
    assert EXPERTS[int(model.predict(between)[0].argmax())] == "clerk"
    assert model.explain(clear, 0)["fallback"] is False
    assert model.explain(clear, 0)["category"] == "verse"
    assert EXPERTS[int(model.predict(clear)[0].argmax())] == "poet"


def test_the_threshold_is_high_where_categories_mislead_and_nought_where_they_help() -> None:
    """A classifier that cannot tell the categories apart must not be believed when the generalist is better than a wrong guess."""
    features, table = example(400, noise=3.0)
    options = {"parameters_b": SIZES, "generalist": "giant", "servers": {}}
    scores = np.array(table.scores).reshape(-1, 3)
    scores[:, 2] = (np.random.default_rng(1).random(400) < 0.6).astype(float)
    mixed = OutcomeTable(table.questions, EXPERTS, floats(scores.ravel().tolist()), categories=table.categories)

    assert CategoryRouter.with_options(options).fit(features, mixed, seed=0).min_confidence > 0.5
    clear, table = example(400)
    scores = np.array(table.scores).reshape(-1, 3)
    scores[:, 2] = 0.5
    mixed = OutcomeTable(table.questions, EXPERTS, floats(scores.ravel().tolist()), categories=table.categories)
    assert CategoryRouter.with_options(options).fit(clear, mixed, seed=0).min_confidence == 0.0


@pytest.mark.parametrize("kind", ["logistic", "discriminant", "knn"])
def test_probabilities_are_calibrated(kind: str) -> None:
    """Among queries with a confidence around p, about p are classified rightly."""
    rng = np.random.default_rng(0)

    def sample(num: int) -> tuple[np.ndarray, np.ndarray]:
        classes = rng.integers(3, size=num)
        vectors = np.eye(20)[classes] + 0.45 * rng.standard_normal((num, 20))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), classes

    from routers.learned.category_classifier import fit as fit_classifier

    vectors, classes = sample(900)
    found = validate([kind], vectors, classes, 3, seed=0)
    model = fit_classifier(found.kind, found.parameter, vectors, classes, 3, seed=0)
    asked, truth = sample(3000)
    probabilities = softmax(model.logits(asked) / found.temperature)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth

    assert abs(confidence.mean() - right.mean()) < 0.03
    for low in (0.4, 0.6, 0.8):
        inside = (confidence >= low) & (confidence < low + 0.2)
        if inside.sum() > 150:
            assert abs(confidence[inside].mean() - right[inside].mean()) < 0.1


def test_questions_without_categories_are_told() -> None:
    features, table = example()
    bare = OutcomeTable(table.questions, EXPERTS, table.scores)
    with pytest.raises(InvalidRequest, match="needs the categories of the labelled questions"):
        CategoryRouter().fit(features, bare, seed=0)


def test_two_budgets_contradict_each_other() -> None:
    with pytest.raises(InvalidRequest, match="budget_b or budget_mb, not both"):
        CategoryRouter.with_options({"budget_b": 1, "budget_mb": 1})


def test_an_unknown_generalist_is_told_with_the_nearest_name() -> None:
    with pytest.raises(InvalidRequest, match="no expert 'gaint'; did you mean 'giant'"):
        _ = fit(generalist="gaint").map
