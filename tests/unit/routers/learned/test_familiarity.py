"""What is said of a query unlike everything known counts for as much as it was right for kinds that were left out."""

from __future__ import annotations

import numpy as np
import pytest

from routers.learned.base import Floats
from routers.learned.blend import BlendRouter
from routers.learned.blend_options import BlendOptions
from routers.learned.familiarity import Familiarity
from tests.unit.routers.learned.test_blend import questions, table_of

KINDS, EACH, WIDTH = 6, 80, 24


def world(*, seed: int = 0) -> tuple[Floats, Floats, Floats, Floats]:
    """Rows of questions around one place per kind, their shares, one direction that all kinds have, and a place far from all kinds."""
    rng = np.random.default_rng(seed)
    places = 2.0 * np.eye(KINDS + 1, WIDTH)
    kind = np.repeat(np.arange(KINDS), EACH)
    rows = (places[kind] + 0.15 * rng.standard_normal((len(kind), WIDTH))).astype(np.float32)
    shares = (0.94 * np.eye(KINDS)[kind] + 0.01).astype(np.float32)
    direction = rng.standard_normal((len(kind), 1)).astype(np.float32)
    return rows, shares, direction, (6.0 * places[KINDS:] + 0.15 * rng.standard_normal((20, WIDTH))).astype(np.float32)


def two_experts(difference: Floats) -> Floats:
    return np.stack([difference, -difference], axis=1)


def test_known_ground_is_trusted_and_what_is_farther_than_anything_left_out_is_not() -> None:
    rows, shares, direction, far = world()
    luck = np.random.default_rng(1).standard_normal(KINDS)
    learnt = Familiarity.learnt(rows, shares, direction, two_experts(np.repeat(luck, EACH)), seed=0)

    assert (learnt.share(rows) == 1).mean() > 0.95
    assert learnt.share(far).max() == 0.0
    assert learnt.distance(far).min() > learnt.distance(rows).max()


@pytest.mark.parametrize("everywhere_alike", [True, False])
def test_what_was_right_of_kinds_that_were_left_out_is_trusted_beyond_known_ground(everywhere_alike: bool) -> None:
    """Either the direction says the same in every kind, or the opposite in every second."""
    rows, shares, direction, _ = world()
    sign = np.ones(KINDS) if everywhere_alike else np.resize([1.0, -1.0], KINDS)
    learnt = Familiarity.learnt(rows, shares, direction, two_experts(0.3 * np.repeat(sign, EACH) * direction[:, 0]), seed=0)
    beyond = learnt.distances[1:-1]

    assert len(beyond)
    assert np.all(np.diff(learnt.shares) <= 0)
    assert (learnt.shares[1:-1] > 0.8).all() if everywhere_alike else (learnt.shares[1:-1] < 0.3).all()


def test_with_one_kind_there_is_nothing_to_leave_out_and_everything_is_trusted() -> None:
    rows, _, direction, far = world()
    learnt = Familiarity.learnt(rows, np.ones((len(rows), 1), np.float32), direction, two_experts(direction[:, 0]), seed=0)

    np.testing.assert_array_equal(learnt.share(far), 1.0)


def test_a_query_unlike_all_training_questions_goes_to_who_is_best_everywhere() -> None:
    features, subjects, scores = questions(600, seed=1)
    scores[:, 1] = np.maximum(scores[:, 1], np.random.default_rng(0).random(600) < 0.4)
    table = table_of(features, subjects, scores[:, :3])
    asked, _, _ = questions(20, seed=2)
    asked.vectors[:] = np.eye(asked.vectors.shape[1], dtype=np.float32)[-1]
    means = scores[:, :3].mean(axis=0)

    shrinking, trusting = (
        BlendRouter(BlendOptions(trees=20, shrink_unfamiliar=shrink)).fit(features, table, seed=0) for shrink in (True, False)
    )
    contrasts = [said - said.mean(axis=1, keepdims=True) for said in (shrinking.predict(asked), trusting.predict(asked))]

    np.testing.assert_allclose(contrasts[0], np.broadcast_to(means - means.mean(), (20, 3)), atol=0.02)
    assert np.ptp(contrasts[1], axis=0).max() > 0.1
    assert shrinking.explain(asked, 0)["trusted"] < 0.05
    assert trusting.explain(asked, 0)["trusted"] == 1.0
    assert shrinking.explain(features, 0)["trusted"] > 0.5
