"""Fits leave the other cores to others."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import faiss
import numpy as np
import pytest
import scipy.linalg  # noqa: F401  # so that its library is there before and after
from threadpoolctl import threadpool_info, threadpool_limits

from domain.outcomes import OutcomeTable, floats
from domain.skills import LabelledQuestion
from routers.learned.base import Features
from routers.learned.ridge import RidgeRouter
from routers.learned.vector_index import VectorIndex
from routers.one_core import one_core
from routers.question_index import QuestionIndex
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


def test_of_two_within_it_at_once_the_last_to_leave_takes_the_limit_back() -> None:
    """Whichever came first: one that leaves does not take the limit from the other, nor does the other keep it afterwards."""
    with threadpool_limits(2, user_api="blas"):
        with ExitStack() as first, ExitStack() as second:
            first.enter_context(one_core())
            second.enter_context(one_core())
            first.close()
            seen = num_threads()
        after = num_threads()

    assert (seen, after) == ({1}, {2})


@pytest.mark.parametrize("kind", ["skills", "learned"])
def test_whoever_searches_searches_on_one(kind: str) -> None:
    """Also where another thread has made the index."""
    vectors = np.eye(4, dtype=np.float32)
    questions = [LabelledQuestion(id=str(n), question="q", answer="a", category=f"c{n % 2}") for n in range(4)]
    learned, known = VectorIndex(vectors), QuestionIndex("e", questions, vectors, ("c0", "c1"), vectors[:2])

    def searched() -> tuple[int, int]:
        faiss.omp_set_num_threads(3)
        before = faiss.omp_get_max_threads()
        learned.search(vectors[:1], 2) if kind == "learned" else known.search(vectors[0], 2)
        return before, faiss.omp_get_max_threads()

    with ThreadPoolExecutor(1) as other:
        assert other.submit(searched).result() == (3, 1)


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
