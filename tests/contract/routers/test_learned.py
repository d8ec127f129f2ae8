"""What every learned router promises."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest

from domain.errors import InvalidRequest
from domain.outcomes import OutcomeTable, floats
from routers.learned.base import CategorisingModel, ExtendableModel, Features, Floats, ScoreModel, UpdatableModel
from routers.learned.catalogue import ESTIMATORS, check_options, estimator

DIMENSIONS = 48
TOPICS = ("algebra", "birds", "chess")
EXPERTS = ("ada", "bert", "cleo")
"""Each is right about the topic at its place, and about one question in five of the others."""
BLIND = {"random", "fixed"}
"""Baselines, which do not look at the question."""
WINNERS = {"pilot", "subspace"}
"""They learn from who wins a question: what the others won before an expert came stays theirs, a part of its topic with it."""
OPTIONS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    *((name, {}) for name in ESTIMATORS),
    ("blend", {"components": ["kinds", "ridge", "neighbours"]}),
    ("blend", {"components": ["forest", "pilot"], "weights": {"forest": 1.0}, "trees": 20}),
    ("neighbours", {"kernel": "gaussian", "width": 0.2, "k": 10}),
    ("neighbours", {"kernel": "linear", "k": 10, "shrinkage": 0.0}),
    ("neighbours", {"kernel": "uniform", "k": 10}),
    ("ridge", {"random_features": 64}),
    ("ridge", {"forgetting": [1.0, 0.9], "penalty": 1.0}),
    ("pilot", {"num_centroids": 3}),
    ("subspace", {"rank": 2}),
    ("npmi", {"boost": 1.5}),
    ("category", {"classifier": "knn"}),
    ("category", {"classifier": "logistic"}),
    ("category", {"classifier": "discriminant"}),
    ("fixed", {"expert": "bert"}),
)
IDS = [f"{name}-{'-'.join(map(str, options.values()))}" if options else name for name, options in OPTIONS]

Case = tuple[str, Mapping[str, Any]]


@pytest.fixture(params=OPTIONS, ids=IDS)
def case(request: pytest.FixtureRequest) -> Case:
    return cast(Case, request.param)


def questions(per_topic: int, *, seed: int, label: str = "q") -> tuple[Features, list[int]]:
    """Questions around one direction per topic, and the topic of each."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(np.random.default_rng(0).standard_normal((DIMENSIONS, len(TOPICS))))[0].T
    topics = [place % len(TOPICS) for place in range(per_topic * len(TOPICS))]
    vectors = centres[topics] + 0.08 * rng.standard_normal((len(topics), DIMENSIONS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Features(tuple(f"{label}{place} about {TOPICS[t]}" for place, t in enumerate(topics)), vectors.astype(np.float32)), topics


def table_of(features: Features, topics: list[int], scores: Floats, experts: tuple[str, ...] = EXPERTS) -> OutcomeTable:
    return OutcomeTable(
        questions=features.texts,
        expert_ids=experts,
        scores=floats(scores.ravel().tolist()),
        categories=tuple(TOPICS[topic] for topic in topics),
        skills=tuple((TOPICS[topic], "reading") for topic in topics),
    )


def specialists(topics: list[int], *, seed: int = 5) -> Floats:
    """(N, 3) of ``EXPERTS``."""
    luck = np.random.default_rng(seed).random((len(topics), len(EXPERTS))) < 0.2
    return np.where(np.array(topics)[:, None] == np.arange(len(EXPERTS)), 1.0, luck.astype(float))


def example(per_topic: int = 30) -> tuple[Features, OutcomeTable]:
    features, topics = questions(per_topic, seed=1)
    return features, table_of(features, topics, specialists(topics))


def fitted(case: Case, features: Features, table: OutcomeTable, *, seed: int = 3) -> ScoreModel:
    return estimator(*case).fit(features, table, seed=seed)


def one(features: Features, row: int) -> Features:
    return Features(features.texts[row : row + 1], features.vectors[row : row + 1])


def test_it_scores_every_expert_on_every_query_between_0_and_1(case: Case) -> None:
    model = fitted(case, *example())
    asked, _ = questions(7, seed=2)
    predicted = model.predict(asked)

    assert model.expert_ids == EXPERTS
    assert predicted.shape == (21, 3)
    assert np.isfinite(predicted).all()
    assert (predicted >= 0).all()
    assert (predicted <= 1).all()


def test_a_query_is_scored_alike_alone_and_among_others(case: Case) -> None:
    model = fitted(case, *example())
    asked, _ = questions(3, seed=2)
    together = model.predict(asked)

    for row in range(len(asked)):
        np.testing.assert_allclose(model.predict(one(asked, row))[0], together[row], atol=1e-5)


def test_the_expert_that_wins_a_cluster_of_questions_is_chosen_there(case: Case) -> None:
    if case[0] in BLIND:
        pytest.skip("a baseline does not look at the question")
    model = fitted(case, *example())
    asked, topics = questions(20, seed=2)

    assert (model.predict(asked).argmax(axis=1) == topics).mean() > 0.95


def test_missing_outcomes_are_no_wrong_answers(case: Case) -> None:
    """Who was measured on half of the questions is still chosen for its topic."""
    features, topics = questions(30, seed=1)
    scores = specialists(topics)
    scores[np.random.default_rng(0).random(scores.shape) < 0.5] = np.nan
    model = fitted(case, features, table_of(features, topics, scores))
    asked, asked_topics = questions(20, seed=2)
    predicted = model.predict(asked)

    assert np.isfinite(predicted).all()
    if case[0] not in BLIND:
        assert (predicted.argmax(axis=1) == asked_topics).mean() > 0.9


def test_an_unmeasured_expert_is_expected_to_score_the_pools_mean(case: Case) -> None:
    if case[0] == "random" or "expert" in case[1]:
        pytest.skip("it does not go by scores")
    features, topics = questions(30, seed=1)
    scores = specialists(topics)
    table = table_of(features, topics, np.column_stack([scores, np.full(len(topics), np.nan)]), (*EXPERTS, "new"))
    predicted = fitted(case, features, table).predict(questions(5, seed=2)[0])

    np.testing.assert_allclose(predicted[:, 3], scores.mean(), atol=1e-5)


def test_nobody_measured_is_half_for_everybody(case: Case) -> None:
    if case[0] == "random":
        pytest.skip("it does not go by scores")
    features, topics = questions(4, seed=1)
    table = table_of(features, topics, np.full((12, 3), np.nan))
    predicted = fitted(case, features, table).predict(features)

    np.testing.assert_allclose(predicted, 0.5, atol=1e-3)


def test_the_same_seed_makes_the_same_model(case: Case) -> None:
    features, table = example()
    asked, _ = questions(5, seed=2)

    np.testing.assert_array_equal(fitted(case, features, table).predict(asked), fitted(case, features, table).predict(asked))


def test_it_explains_itself_in_json(case: Case) -> None:
    features, table = example()
    explained = fitted(case, features, table).explain(features, 4)

    assert explained
    assert json.loads(json.dumps(explained, allow_nan=False)) == explained


def test_the_category_that_it_finds_is_the_one_that_it_tells(case: Case) -> None:
    features, table = example()
    model = fitted(case, features, table)
    for row in range(6):
        found = cast(CategorisingModel, model).category_of(features, row) if hasattr(model, "category_of") else None
        assert found == model.explain(features, row).get("category")


def test_it_explains_one_query_as_it_explains_it_among_others(case: Case) -> None:
    """Also right after it has predicted another one."""
    features, table = example()
    model = fitted(case, features, table)
    first, second = features.rows([0]), features.rows([1])
    model.predict(first)
    other = model.explain(second, 0)
    model.predict(second)

    assert json.dumps(other) == json.dumps(model.explain(second, 0))
    np.testing.assert_allclose(model.predict(first)[0], model.predict(features)[0], atol=1e-5)


def test_it_explains_itself_with_missing_outcomes(case: Case) -> None:
    features, topics = questions(4, seed=1)
    scores = specialists(topics)
    scores[:6, 1] = np.nan
    explained = fitted(case, features, table_of(features, topics, scores)).explain(features, 0)

    assert json.dumps(explained, allow_nan=False)


def test_it_can_be_pickled(case: Case) -> None:
    features, table = example()
    model = fitted(case, features, table)
    copy = pickle.loads(pickle.dumps(model))

    np.testing.assert_array_equal(copy.predict(features), model.predict(features))


@pytest.mark.parametrize(("num_topics", "num_experts"), [(1, 3), (3, 1), (1, 1)])
def test_one_question_or_one_expert_is_enough(case: Case, num_topics: int, num_experts: int) -> None:
    if "expert" in case[1]:
        case = (case[0], {"expert": "ada"})
    features, topics = questions(10 if num_topics > 1 else 1, seed=1)
    rows = list(range(len(topics) if num_topics > 1 else 1))
    features = Features(tuple(features.texts[row] for row in rows), features.vectors[rows])
    topics = [topics[row] for row in rows]
    table = table_of(features, topics, specialists(topics)[:, :num_experts], EXPERTS[:num_experts])
    model = fitted(case, features, table)
    asked, _ = questions(2, seed=2)

    assert model.predict(asked).shape == (6, num_experts)
    assert np.isfinite(model.predict(asked)).all()
    assert json.dumps(model.explain(asked, 0), allow_nan=False)


@pytest.mark.parametrize("score", [0.0, 1.0, 0.4])
def test_scores_that_are_all_the_same_are_predicted_as_they_are(case: Case, score: float) -> None:
    if case[0] == "random":
        pytest.skip("it does not go by scores")
    features, topics = questions(20, seed=1)
    predicted = fitted(case, features, table_of(features, topics, np.full((60, 3), score))).predict(features)

    np.testing.assert_allclose(predicted, score, atol=0.03)


def test_nothing_to_learn_from_is_told(case: Case) -> None:
    features = Features((), np.zeros((0, DIMENSIONS), np.float32))
    with pytest.raises(InvalidRequest, match=r"nothing to learn from|categories"):
        fitted(case, features, OutcomeTable((), EXPERTS, floats([])))


def test_an_unknown_option_is_refused_with_the_nearest_known_one(case: Case) -> None:
    name, options = case
    known = next(iter(options), None)
    wrong = f"{known}x" if known else "no_such_thing"
    with pytest.raises(InvalidRequest, match=f"router option '{wrong}' is no option of the router '{name}'") as refused:
        check_options(name, {wrong: 1})

    assert refused.value.param == f"router_options.{wrong}"
    if known:
        assert known in refused.value.message


# --- a pool that changes --------------------------------------------------------------------------------------------


def extended(case: Case) -> tuple[ExtendableModel, ExtendableModel, OutcomeTable, Features]:
    """A model of the first two experts, the same with the third added, and what the third was measured on."""
    if "expert" in case[1]:
        case = (case[0], {})
    features, topics = questions(30, seed=1)
    scores = specialists(topics)
    model = cast(ExtendableModel, fitted(case, features, table_of(features, topics, scores[:, :2], EXPERTS[:2])))
    table = table_of(features, topics, scores)
    return model, model.with_expert("cleo", features, table), table, features


def test_an_added_expert_is_chosen_where_it_wins(case: Case) -> None:
    _, grown, _, _ = extended(case)
    asked, topics = questions(20, seed=2)

    assert grown.expert_ids == EXPERTS
    if case[0] not in BLIND:
        assert (grown.predict(asked).argmax(axis=1) == topics).mean() > (0.75 if case[0] in WINNERS else 0.95)


def test_adding_an_expert_leaves_the_others_as_they_are(case: Case) -> None:
    if case[0] == "category" or "boost" in case[1]:
        pytest.skip("who serves a category, and who is boosted, depends on everybody")
    model, grown, _, _ = extended(case)
    asked, _ = questions(20, seed=2)

    np.testing.assert_allclose(grown.predict(asked)[:, :2], model.predict(asked), atol=1e-7)


def test_the_model_that_was_extended_is_as_it_was(case: Case) -> None:
    """A query in flight keeps what it began with."""
    features, topics = questions(30, seed=1)
    if "expert" in case[1]:
        case = (case[0], {})
    table = table_of(features, topics, specialists(topics))
    model = cast(ExtendableModel, fitted(case, features, table))
    before = model.predict(features)
    more, more_topics = questions(5, seed=9, label="more")
    model.with_expert("new", more, table_of(more, more_topics, np.ones((15, 1)), ("new",)))
    model.without_expert("bert")

    assert model.expert_ids == EXPERTS
    np.testing.assert_array_equal(model.predict(features), before)


def test_an_expert_that_is_added_again_is_replaced(case: Case) -> None:
    _, grown, table, features = extended(case)

    assert grown.with_expert("cleo", features, table).expert_ids == EXPERTS
    np.testing.assert_allclose(grown.with_expert("cleo", features, table).predict(features), grown.predict(features), atol=1e-6)


def test_a_removed_expert_is_gone_and_comes_back_as_it_was(case: Case) -> None:
    _, grown, table, features = extended(case)
    shrunk = grown.without_expert("cleo")

    assert shrunk.expert_ids == EXPERTS[:2]
    assert shrunk.predict(features).shape == (90, 2)
    np.testing.assert_allclose(shrunk.with_expert("cleo", features, table).predict(features), grown.predict(features), atol=1e-6)


def test_an_expert_can_be_measured_on_questions_of_its_own(case: Case) -> None:
    """Those that a new expert was asked need not be those that the others were asked; they look like those, since
    some routers go by that too."""
    model, _, _, _ = extended(case)
    more, topics = questions(20, seed=9, label="r")
    grown = model.with_expert("cleo", more, table_of(more, topics, specialists(topics)))
    asked, asked_topics = questions(20, seed=2)

    assert grown.expert_ids == EXPERTS
    if case[0] not in BLIND:
        assert (grown.predict(asked).argmax(axis=1) == asked_topics).mean() > (0.75 if case[0] in WINNERS else 0.9)


def test_who_is_unknown_can_neither_be_added_nor_removed(case: Case) -> None:
    _, grown, table, features = extended(case)
    with pytest.raises(InvalidRequest, match="no expert 'cleopatra'"):
        grown.without_expert("cleopatra")
    with pytest.raises(InvalidRequest, match="no expert 'cleopatra'"):
        grown.with_expert("cleopatra", features, table)


def test_the_last_expert_cannot_be_removed(case: Case) -> None:
    _, grown, _, _ = extended(case)
    last = grown.without_expert("cleo").without_expert("ada")
    with pytest.raises(InvalidRequest, match="only expert"):
        last.without_expert("bert")


# --- learning from single answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"random_features": 32}, {"forgetting": [1.0, 0.8]}])
def test_what_can_be_updated_follows_an_expert_that_became_bad(options: Mapping[str, Any]) -> None:
    features, table = example()
    model = cast(UpdatableModel, fitted(("ridge", {"penalty": 1.0, **options}), features, table))
    asked, topics = questions(20, seed=2)
    birds = asked.vectors[[row for row, topic in enumerate(topics) if topic == 1]]
    before = model.predict(asked)
    after = model
    for vector in birds:
        after = after.updated(vector, "bert", 0.0)

    assert (after.predict(asked)[np.array(topics) == 1, 1] < before[np.array(topics) == 1, 1] - 0.2).all()
    np.testing.assert_array_equal(after.predict(asked)[:, [0, 2]], before[:, [0, 2]])
    np.testing.assert_array_equal(model.predict(asked), before)


def test_the_catalogue_suggests_the_nearest_name() -> None:
    with pytest.raises(InvalidRequest, match="unknown learned router 'neighbors'; did you mean 'neighbours'"):
        estimator("neighbors")


def test_random_is_fair() -> None:
    features, _ = questions(400, seed=1)
    chosen = fitted(("random", {}), *example()).predict(features).argmax(axis=1)

    assert math.isclose((chosen == 0).mean(), 1 / 3, abs_tol=0.05)
