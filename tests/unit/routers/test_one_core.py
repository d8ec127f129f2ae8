"""Fits leave the other cores to others."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import scipy.linalg  # noqa: F401  # so that its library is there before and after
from threadpoolctl import threadpool_info

from domain.outcomes import OutcomeTable, floats
from routers.learned.base import Features
from routers.learned.ridge import RidgeRouter
from routers.one_core import one_core
from tests.fakes.learned import World
from tests.fakes.routing import card, snapshot_of


def num_threads() -> set[int]:
    """Of NumPy's and SciPy's products."""
    return {library["num_threads"] for library in threadpool_info() if "scipy_openblas" in library["filepath"]}


def test_products_use_one_thread_and_afterwards_as_many_as_before() -> None:
    before, inside = num_threads(), set[int]()

    def fails() -> None:
        with one_core():
            inside.update(num_threads())
            raise ValueError("in vain")

    with pytest.raises(ValueError, match="in vain"):
        fails()

    assert inside == {1}
    assert num_threads() == before


async def test_the_service_fits_on_one() -> None:
    before, seen = num_threads(), list[set[int]]()

    class Looking(RidgeRouter):
        def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> Any:
            seen.append(num_threads())
            return super().fit(features, table, seed=seed)

    world = World(snapshot_of([card(name) for name in ("calculator", "atlas", "mirror")], {}))
    await world.router("ridge", lambda _: Looking())
    await asyncio.wait_for(world.fitted("ridge"), 60)

    assert seen == [{1}]
    assert num_threads() == before


def test_the_results_are_the_same() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 40)).astype(np.float32)
    scores = (rng.random((300, 5)) < 0.5).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = np.nan
    texts = tuple(f"q{n}" for n in range(300))
    table = OutcomeTable(texts, tuple("abcde"), floats(scores.ravel().tolist()))
    features = Features(texts, vectors)
    with one_core():
        one = RidgeRouter().fit(features, table, seed=0)
    several = RidgeRouter().fit(features, table, seed=0)

    np.testing.assert_allclose(one.predict(features), several.predict(features), atol=1e-6)
    assert one.penalty == several.penalty
