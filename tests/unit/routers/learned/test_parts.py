"""The pieces that learned routers share: index, link, criteria, winners; and what is particular to pilot, subspace and npmi."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from domain.outcomes import OutcomeTable, floats
from routers.learned.base import Features, Floats
from routers.learned.criteria import choice_loss, contrast_error
from routers.learned.link import Link
from routers.learned.neighbours import NeighboursRouter
from routers.learned.npmi import NpmiRouter
from routers.learned.pilot import PilotRouter
from routers.learned.subspace import SubspaceRouter
from routers.learned.vector_index import MAX_EXACT, VectorIndex
from routers.learned.wins import NOBODY, winners


def unit(num: int, dimensions: int = 16, *, seed: int = 0) -> Floats:
    vectors = np.random.default_rng(seed).standard_normal((num, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def table_of(scores: object, *, categories: tuple[str, ...] = (), skills: tuple[tuple[str, ...], ...] = ()) -> OutcomeTable:
    cells = np.asarray(scores, np.float64)
    return OutcomeTable(
        tuple(f"question {n}" for n in range(len(cells))),
        tuple("abcdef"[: cells.shape[1]]),
        floats(cells.ravel().tolist()),
        categories=categories,
        skills=skills,
    )


def features_of(vectors: Floats) -> Features:
    return Features(tuple(f"question {n}" for n in range(len(vectors))), vectors)


# --- index ----------------------------------------------------------------------------------------------------------


def test_the_nearest_come_first_and_leaving_one_out_leaves_itself_out() -> None:
    vectors = unit(200)
    index = VectorIndex(vectors)
    own = np.arange(200)
    cosines, rows = index.neighbours_of(vectors, own, 5)
    every = vectors @ vectors.T
    np.fill_diagonal(every, -2)

    assert rows.shape == (200, 5)
    np.testing.assert_array_equal(rows[:, 0], every.argmax(axis=1))
    np.testing.assert_allclose(cosines[:, 0], every.max(axis=1), atol=1e-6)


def test_equal_vectors_are_neighbours_of_each_other() -> None:
    vectors = np.repeat(unit(1), 6, axis=0)
    _, rows = VectorIndex(vectors).neighbours_of(vectors, np.arange(6), 3)

    assert rows.shape == (6, 3)
    assert not (rows == np.arange(6)[:, None]).any()


def test_many_vectors_are_searched_in_lists_and_found() -> None:
    """Vectors in clumps, as questions are: nearly all of the true neighbours are found."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((300, 32))
    vectors = centres[rng.integers(300, size=MAX_EXACT + 2000)] + 0.5 * rng.standard_normal((MAX_EXACT + 2000, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    index = VectorIndex(vectors)
    asked = vectors[:50]
    true = np.argsort(-(asked @ vectors.T), axis=1)[:, :20]
    _, rows = index.search(asked, 20)

    assert np.mean([len(set(true[n]) & set(rows[n])) / 20 for n in range(50)]) > 0.9
    copy = pickle.loads(pickle.dumps(index))
    np.testing.assert_array_equal(copy.search(asked, 20)[1], rows)
    assert len(index.with_vectors(asked)) == len(index) + 50


# --- link, criteria, winners ----------------------------------------------------------------------------------------


def test_a_link_finds_the_curve_that_made_the_scores() -> None:
    rng = np.random.default_rng(0)
    fits = rng.uniform(-1, 1, size=(5000, 4))
    chances = 1 / (1 + np.exp(-(0.5 + 2 * fits)))
    link = Link.fitted(fits, (rng.random(fits.shape) < chances).astype(float))

    np.testing.assert_allclose(link(fits), chances, atol=0.02)


def test_a_link_never_turns_the_order_round() -> None:
    fits = np.linspace(0, 1, 100)[:, None]
    link = Link.fitted(fits, 1.0 - (fits > 0.5))

    assert (np.diff(link(fits)[:, 0]) > 0).all()


def test_the_contrast_error_is_blind_to_how_hard_questions_are() -> None:
    truth = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, np.nan]])

    assert contrast_error(truth - np.array([[0.4], [0.1], [0.9]]), truth) == pytest.approx(0.0)
    assert contrast_error(np.zeros((3, 2)), truth) == pytest.approx(0.25)


def test_the_choice_loss_is_what_the_chosen_experts_missed() -> None:
    truth = np.array([[1.0, 0.0], [0.0, 1.0], [np.nan, 1.0]])

    assert choice_loss(np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]), truth) == pytest.approx(0.5)


def test_a_question_that_several_answer_is_won_by_the_best_of_its_category() -> None:
    scores = [[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 1], [0, 0, 1], [np.nan, 0, 1]]
    won = winners(table_of(scores, categories=("x", "x", "x", "y", "y", "y")))

    assert won.tolist() == [0, 0, NOBODY, 2, 2, 2]


def test_a_single_expert_wins_what_it_did_not_fail() -> None:
    assert winners(table_of([[1.0], [0.0], [np.nan]])).tolist() == [0, NOBODY, NOBODY]


# --- particular to one router ---------------------------------------------------------------------------------------


def test_neighbours_name_the_questions_and_what_everybody_scored_there() -> None:
    vectors = unit(50)
    scores = np.random.default_rng(0).integers(2, size=(50, 3)).astype(float)
    explained = NeighboursRouter().fit(features_of(vectors), table_of(scores), seed=0).explain(features_of(vectors), 7)
    nearest = explained["neighbours"][0]

    assert nearest["question"] == "question 7"
    assert nearest["similarity"] == pytest.approx(1.0, abs=1e-4)
    assert nearest["scores"] == dict(zip("abc", scores[7].tolist(), strict=True))


def test_more_questions_become_neighbours() -> None:
    vectors = unit(60)
    scores = np.zeros((60, 2))
    model = NeighboursRouter.with_options({"k": 3, "kernel": "uniform", "shrinkage": 0}).fit(features_of(vectors), table_of(scores), seed=0)
    new = unit(1, seed=9)
    more = Features(("new",) * 3, np.repeat(new, 3, axis=0))
    grown = model.with_expert("b", more, OutcomeTable(more.texts, ("b",), floats([1.0, 1.0, 1.0])))
    asked = Features(("asked",), new)

    assert grown.predict(asked)[0, 1] == pytest.approx(1.0)
    assert model.predict(asked)[0, 1] == pytest.approx(0.0)


def test_every_expert_has_a_pilot_for_each_category_that_it_wins() -> None:
    vectors = np.repeat(np.eye(4, dtype=np.float32), 10, axis=0)
    categories = tuple(name for name in ("w", "x", "y", "z") for _ in range(10))
    scores = np.repeat(np.array([[1, 0], [1, 0], [0, 1], [0, 0]]), 10, axis=0)
    model = PilotRouter().fit(features_of(vectors), table_of(scores, categories=categories), seed=0)

    assert [centroid.category for centroid in model.pilots[0][1]] == ["w", "x"]
    assert [centroid.category for centroid in model.pilots[1][1]] == ["y"]
    np.testing.assert_allclose(model.pilots[1][0], np.eye(4)[[2]])
    assert model.explain(features_of(vectors), 0)["nearest_centroid"]["a"] == {"category": "w", "num_questions": 10, "similarity": 1.0}


def test_luck_makes_no_pilot() -> None:
    """One question in thirty is too few to stand for a category."""
    vectors = unit(30)
    scores = np.array([[1.0, 0.0]] * 29 + [[0.0, 1.0]])
    model = PilotRouter().fit(features_of(vectors), table_of(scores), seed=0)

    assert len(model.pilots[1][0]) == 0
    assert (model.predict(features_of(vectors)).argmax(axis=1) == 0).all()


def _topics(*axes: int, num: int = 20) -> Floats:
    """Questions in planes of their own: two axes each."""
    rng = np.random.default_rng(1)
    vectors = np.zeros((num * len(axes), 40))
    for place, axis in enumerate(axes):
        rows = slice(place * num, (place + 1) * num)
        vectors[rows, 2 * axis : 2 * axis + 2] = rng.standard_normal((num, 2)) + 2
    vectors += 0.01 * rng.standard_normal(vectors.shape)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_an_expert_is_admitted_that_covers_something_new() -> None:
    vectors = _topics(0, 1, 2)
    scores = np.kron(np.eye(3), np.ones((20, 1)))
    model = SubspaceRouter.with_options({"rank": 2}).fit(features_of(vectors), table_of(scores), seed=0)
    asked = _topics(0, 5)
    texts = Features(tuple(f"new {n}" for n in range(40)), asked)
    again = OutcomeTable(texts.texts, ("a", "b", "c", "again"), floats(np.kron([[0, 0, 0, 1], [0, 0, 0, 0]], np.ones((20, 1))).ravel()))
    other = OutcomeTable(texts.texts, ("a", "b", "c", "other"), floats(np.kron([[0, 0, 0, 0], [0, 0, 0, 1]], np.ones((20, 1))).ravel()))
    refused, admitted = model.admits("again", texts, again), model.admits("other", texts, other)

    assert (refused.admitted, refused.nearest) == (False, "a")
    assert refused.affinity > refused.threshold
    assert admitted.admitted
    assert admitted.affinity < 0.2


def test_the_association_is_the_normalised_mutual_information() -> None:
    """Many questions, so that shrinking does not matter: right on all of one skill, on none of the other."""
    skills = (("x",), ("y",)) * 5000
    scores = np.tile([[1.0, 0.0], [0.0, 0.0]], (5000, 1))
    model = NpmiRouter().fit(features_of(unit(10_000, 4)), table_of(scores, skills=skills), seed=0)

    assert model.skills == ("x", "y")
    # p(x) = p(right) = p(x, right) = 1/2: as much as can be. And p(y, right) = 0.
    assert model.associations[0, 0] == pytest.approx(1.0, abs=0.01)
    assert model.associations[1, 0] == pytest.approx(-0.82, abs=0.05)


def test_the_two_most_associated_experts_are_boosted() -> None:
    model = NpmiRouter.with_options({"boost": 2}).fit(features_of(unit(8)), table_of(np.eye(8, 4), skills=(("x",),) * 8), seed=0)

    np.testing.assert_allclose(model.boosted(np.array([[0.1, 0.3, 0.2, -0.1]])), [[0.1, 0.6, 0.4, -0.1]])
    np.testing.assert_allclose(model.boosted(np.array([[-0.3, 0.3, -0.2, -0.1]])), [[-0.3, 0.6, -0.2, -0.1]])
