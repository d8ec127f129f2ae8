"""The space in which questions of one skill lie close together."""

from __future__ import annotations

import numpy as np

from routers.skill_space import fit

SIZE = 16


def two_skills(num: int, *, seed: int = 0) -> tuple[np.ndarray, list[list[int]]]:
    """Two skills that differ a little in one direction and vary much in another, as topics do."""
    rng = np.random.default_rng(seed)
    vectors = 0.05 * rng.standard_normal((num, SIZE))
    vectors[:, 0] += 1.0
    labels = [[i % 2] for i in range(num)]
    vectors[:, 1] += np.array([0.15 if i % 2 else -0.15 for i in range(num)])
    vectors[:, 2] += 0.8 * rng.standard_normal(num)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), labels


def test_what_varies_within_a_skill_counts_less_than_what_tells_skills_apart() -> None:
    vectors, labels = two_skills(400)
    tests, expected = two_skills(200, seed=1)
    space = fit(vectors, labels, 2)
    learned = (space.project(tests) @ space.centres.T).argmax(axis=1)
    centres = np.stack([vectors[i::2].mean(axis=0) for i in (0, 1)])
    plain = (tests @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T).argmax(axis=1)
    truth = np.array([label[0] for label in expected])

    assert (learned == truth).mean() > 0.97
    assert (learned == truth).mean() > (plain == truth).mean() + 0.02


def test_projections_and_centres_have_unit_length() -> None:
    vectors, labels = two_skills(20)
    space = fit(vectors, labels, 2)

    assert np.allclose(np.linalg.norm(space.project(vectors), axis=1), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(space.centres, axis=1), 1, atol=1e-5)


def test_one_question_a_skill_leaves_the_encoders_space_as_it_is() -> None:
    vectors, _ = two_skills(2)
    space = fit(vectors, [[0], [1]], 2)

    assert np.allclose(space.project(vectors), vectors, atol=1e-5)


def test_equal_questions_leave_the_encoders_space_as_it_is() -> None:
    vectors = np.tile(two_skills(1)[0], (4, 1))

    assert np.allclose(fit(vectors, [[0]] * 4, 1).transform, np.eye(SIZE))


def test_no_questions_give_a_space_without_centres() -> None:
    space = fit(np.zeros((0, SIZE), np.float32), [], 0)

    assert space.centres.shape == (0, SIZE)
    assert space.project(np.eye(SIZE, dtype=np.float32)).shape == (SIZE, SIZE)


def test_a_question_of_two_skills_counts_in_both_centres() -> None:
    vectors = np.eye(SIZE, dtype=np.float32)[:3]
    space = fit(vectors, [[0], [0, 1], [1]], 2)

    assert space.centres[0] @ space.project(vectors)[1] > 0.3
    assert space.centres[1] @ space.project(vectors)[1] > 0.3
