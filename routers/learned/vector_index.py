"""Unit vectors, searchable by cosine. FAISS: exact up to some ten thousand, inverted lists beyond."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from routers.learned.base import Floats
from routers.one_core import search_on_one_core

Rows = npt.NDArray[np.int64]

MAX_EXACT = 20_000
"""Vectors up to which every one is compared: 20,000 × 384 take about a millisecond. More are put into lists."""
_NUM_LISTS = 512
_NUM_PROBED = 24
"""Lists searched for a query, of ``_NUM_LISTS``: one vector in twenty is compared."""
_TRAINED_ON = 64
"""Vectors per list that the lists are made from."""
_ROUNDS = 8


class VectorIndex:
    """Immutable: more vectors make a new one. Picklable."""

    def __init__(self, vectors: Floats, *, seed: int = 0) -> None:
        """*vectors* (n, d) are unit vectors; row numbers are their places."""
        import faiss

        search_on_one_core()  # a fit uses one core as well
        vectors = np.ascontiguousarray(vectors, np.float32)
        dimensions = vectors.shape[1]
        self._faiss: Any
        if len(vectors) <= MAX_EXACT:
            self._faiss = faiss.IndexFlatIP(dimensions)
        else:
            self._faiss = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimensions), dimensions, _NUM_LISTS, faiss.METRIC_INNER_PRODUCT)
            self._faiss.nprobe = _NUM_PROBED
            self._faiss.cp.niter = _ROUNDS
            self._faiss.cp.seed = seed + 1
            self._faiss.cp.max_points_per_centroid = _TRAINED_ON
            self._faiss.train(vectors)
        self._faiss.add(vectors)

    def __len__(self) -> int:
        return int(self._faiss.ntotal)

    def search(self, vectors: Floats, k: int) -> tuple[Floats, Rows]:
        """Cosines and rows (n, k) of the nearest to each of *vectors* (n, d), nearest first; fewer columns when there are fewer.

        Where the lists that were searched hold fewer than *k*, the rest has row -1 and the cosine -1.
        """
        search_on_one_core()
        cosines, rows = self._faiss.search(np.ascontiguousarray(vectors, np.float32), min(k, len(self)))
        return np.where(rows < 0, np.float32(-1.0), cosines), rows

    def neighbours_of(self, vectors: Floats, own: Rows, k: int) -> tuple[Floats, Rows]:
        """The same for vectors that are in the index, at the rows *own* (n,), each without itself: what leaving one out needs."""
        cosines, rows = self.search(vectors, k + 1)
        width = rows.shape[1] - 1
        itself = rows == own[:, None]
        itself[~itself.any(axis=1), -1] = True  # one of several equal vectors, or not among those searched: the farthest goes instead
        return cosines[~itself].reshape(len(vectors), width), rows[~itself].reshape(len(vectors), width)

    def with_vectors(self, vectors: Floats) -> VectorIndex:
        """One that holds *vectors* (n, d) too, in the rows behind the others."""
        import faiss

        grown = object.__new__(VectorIndex)
        grown._faiss = faiss.clone_index(self._faiss)
        grown._faiss.add(np.ascontiguousarray(vectors, np.float32))
        return grown
