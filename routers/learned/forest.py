"""Extremely randomised trees (Geurts et al. 2006) with several outputs, as flat arrays: fast for one row, and open to new outputs.

Grown by scikit-learn, each on a part of the questions, so that the rest judges it. Flattened, because its ``predict`` takes milliseconds
for a single row: here all trees are walked at once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from routers.learned.base import Floats

Ints = npt.NDArray[np.int64]

_SHARE = 0.75
"""Of the questions that a tree is grown on."""
_MAX_GROWN = 8192
"""Questions that a tree is grown on at most: more made no better trees, and take longer."""
_MIN_LEAF = 7
_MAX_FEATURES = 0.4
"""Of the columns, tried at a split. Many say nothing, so that few tried ones would often all be idle."""
_CHUNK = 256
"""Rows that are walked at once: 256 × 250 nodes."""
_SHRINKAGE = 2.0
"""Answers that a node's value for an added output counts its parent's as."""


@dataclass(frozen=True)
class Forest:
    """T trees of M nodes in all. A leaf is its own child."""

    roots: Ints
    """(T,)"""
    column: npt.NDArray[np.int32]
    """(M,) that a node looks at."""
    threshold: Floats
    """(M,) rows above it go to the second child."""
    children: npt.NDArray[np.int32]
    """(2 M,)"""
    values: Floats
    """(M, E) mean target of the questions that came through a node."""
    depth: int

    @classmethod
    def grown(cls, rows: Floats, targets: Floats, judged: Ints, *, num_trees: int, seed: int) -> tuple[Forest, Floats]:
        """Trees from *rows* (N, d) to *targets* (N, E), and what those trees say of the rows *judged* that were not grown on them
        (len(judged), E): NaN where all were."""
        from sklearn.tree import ExtraTreeRegressor

        rng = np.random.default_rng(seed)
        size = min(max(1, int(_SHARE * len(rows))), _MAX_GROWN)
        sums, counts, trees = np.zeros((len(judged), targets.shape[1])), np.zeros(len(judged)), []
        for _ in range(num_trees):
            used = rng.permutation(len(rows))[:size]
            tree = ExtraTreeRegressor(min_samples_leaf=_MIN_LEAF, max_features=_MAX_FEATURES, random_state=int(rng.integers(2**31))).fit(
                rows[used], targets[used]
            )
            trees.append(tree.tree_)
            inside = np.zeros(len(rows), bool)
            inside[used] = True
            outside = np.flatnonzero(~inside[judged])
            if len(outside):
                sums[outside] += tree.predict(rows[judged[outside]]).reshape(len(outside), -1)
                counts[outside] += 1
        with np.errstate(invalid="ignore"):
            return cls._flat(trees, targets.shape[1]), sums / counts[:, None]

    @classmethod
    def _flat(cls, trees: list[Any], num_outputs: int) -> Forest:
        roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])]).astype(np.int64)
        column, threshold, children, values = [], [], [], []
        for root, tree in zip(roots.tolist(), trees, strict=True):
            own = np.arange(tree.node_count)
            leaf = tree.children_left < 0
            column.append(np.where(leaf, 0, tree.feature))
            exact = np.where(leaf, np.inf, tree.threshold)
            # Rows are float32: the largest one that is not above the threshold decides the same.
            rounded = exact.astype(np.float32)
            threshold.append(np.where(rounded > exact, np.nextafter(rounded, np.float32(-np.inf)), rounded))
            both = np.stack([np.where(leaf, own, tree.children_left), np.where(leaf, own, tree.children_right)], axis=1)
            children.append((both + root).ravel())
            values.append(tree.value.reshape(tree.node_count, num_outputs))
        return cls(
            roots=roots,
            column=np.concatenate(column).astype(np.int32),
            threshold=np.concatenate(threshold).astype(np.float32),
            children=np.concatenate(children).astype(np.int32),
            values=np.concatenate(values).astype(np.float32),
            depth=max(int(tree.max_depth) for tree in trees),
        )

    def predict(self, rows: Floats) -> Floats:
        """(N, E) mean over the trees."""
        out = np.empty((len(rows), self.values.shape[1]), np.float32)
        for start in range(0, len(rows), _CHUNK):
            part = np.ascontiguousarray(rows[start : start + _CHUNK], np.float32)
            out[start : start + _CHUNK] = self.values[self._paths(part)[-1]].mean(axis=1)
        return out

    def reasons(self, row: Floats, output: int) -> Floats:
        """(d,) what each column of *row* (d,) adds to *output*, beside what is said of everybody: the change of the mean at every split on
        it (Saabas 2014)."""
        values = self.values[:, output]
        added = np.zeros(len(row))
        steps = [nodes[0] for nodes in self._paths(np.ascontiguousarray(row[None], np.float32))]
        for nodes, following in itertools.pairwise(steps):
            added += np.bincount(self.column[nodes], values[following] - values[nodes], len(row))
        return added / len(self.roots)

    def with_output(self, rows: Floats, target: Floats, offset: float) -> Forest:
        """One more output, whose mean in every node is that of *target* (N,) over *rows* (N, d), shrunk to the node above and in the
        roots to *offset*. Splits and other outputs stay."""
        sums, counts = np.zeros(len(self.column)), np.zeros(len(self.column))
        for start in range(0, len(rows), _CHUNK):
            part = np.ascontiguousarray(rows[start : start + _CHUNK], np.float32)
            before: npt.NDArray[np.int32] | None = None
            for nodes in self._paths(part):
                # A leaf stands for the rest of the walk; it is counted when it is reached.
                moved = np.ones(nodes.shape, bool) if before is None else nodes != before
                weight = np.broadcast_to(target[start : start + _CHUNK, None], nodes.shape)[moved]
                sums += np.bincount(nodes[moved], weight, len(sums))
                counts += np.bincount(nodes[moved], minlength=len(counts))
                before = nodes
        means = np.zeros(len(sums))
        means[self.roots] = (sums[self.roots] + _SHRINKAGE * offset) / (counts[self.roots] + _SHRINKAGE)
        level = self.roots
        while len(level):
            below = self.children.reshape(-1, 2)[level]
            inner = below[:, 0] != level
            for side in (0, 1):
                child = below[inner, side]
                means[child] = (sums[child] + _SHRINKAGE * means[level[inner]]) / (counts[child] + _SHRINKAGE)
            level = below[inner].ravel()
        return replace(self, values=np.column_stack([self.values, means.astype(np.float32)]))

    def with_outputs(self, kept: list[int]) -> Forest:
        """These outputs only."""
        return replace(self, values=self.values[:, kept])

    def _paths(self, rows: Floats) -> list[npt.NDArray[np.int32]]:
        """The nodes (n, T) where the rows stand, from the roots to the leaves."""
        nodes = np.broadcast_to(self.roots.astype(np.int32), (len(rows), len(self.roots)))
        offsets = (np.arange(len(rows)) * rows.shape[1])[:, None]
        flat, walked = rows.ravel(), [nodes]
        for _ in range(self.depth):
            above = flat[offsets + self.column[nodes]] > self.threshold[nodes]
            following = self.children[2 * nodes + above]
            if np.array_equal(following, nodes):
                break
            nodes = following
            walked.append(nodes)
        return walked
