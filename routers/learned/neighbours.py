"""Nearest labelled questions and what every expert scored on them.

C3PO (arXiv 2504.07964) weights experts by a kernel regression over "successful neighbours" in a reference set. Here:
``score = (Σ K·score_of_neighbour + m·own_mean) / (Σ K + m)``, so that a query with little near it falls back to the expert's mean over
everything. Kernel, width, number of neighbours and *m* are those that predict the training questions best, each left out in turn.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from domain.outcomes import OutcomeTable
from domain.quoting import shortened
from routers.learned.base import Features, Floats, checked, column_of, mean_scores, others_than, score_matrix
from routers.learned.criteria import contrast_error
from routers.learned.options import Number, OneOf, option, parse
from routers.learned.vector_index import VectorIndex

KERNELS = ("gaussian", "linear", "uniform")
_WIDTHS = (0.05, 0.1, 0.2, 0.4)
"""Of the gaussian kernel, in cosine: a neighbour that is this much less similar weighs 1/e."""
_NUM_NEIGHBOURS = (10, 20, 40, 80, 160, 320)
_SHRINKAGES = (0.0, 0.1, 0.3, 1.0, 3.0)
"""Tried weights of an expert's own mean, in shares of a training question's median neighbour mass."""
_MAX_LEFT_OUT = 2000
"""Training questions that are left out in turn; more change no choice and cost time."""
_CHUNK = 256
"""Queries whose neighbours' scores are held at once: 256 × 320 × 20 float32 are 6.5 MB."""
_MAX_EXPLAINED = 8
_MAX_TEXT = 160


@dataclass(frozen=True, slots=True)
class NeighboursOptions:
    kernel: str | None = option(OneOf(KERNELS))
    """None: chosen by cross-validation, as are the others."""
    k: int | None = option(Number(1, 1000, whole=True))
    width: float | None = option(Number(0, 2, above=True))
    """Of the gaussian kernel, in cosine."""
    shrinkage: float | None = option(Number(0, 100))
    """Weight of an expert's own mean, in shares of a training question's median neighbour mass."""


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How neighbours are weighted."""

    kernel: str
    width: float
    k: int
    mass: float
    """What an expert's own mean weighs, in the unit of the kernel's weights."""


class NeighboursRouter:
    """Kernel regression over per-question outcomes."""

    name = "neighbours"

    def __init__(self, options: NeighboursOptions | None = None) -> None:
        self._options = options or NeighboursOptions()

    @classmethod
    def with_options(cls, values: Mapping[str, Any]) -> NeighboursRouter:
        """Raises ``InvalidRequest`` for options that it does not take."""
        return cls(parse(NeighboursOptions, values, router=cls.name))

    def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> NeighboursModel:
        scores = checked(features, table, router=self.name)
        index = VectorIndex(features.vectors, seed=seed)
        means = mean_scores(scores)
        return NeighboursModel(
            expert_ids=table.expert_ids,
            smoothing=_choose(self._options, index, features.vectors, scores, means, seed=seed),
            means=means.astype(np.float32),
            scores=np.array(scores, np.float32),
            texts=features.texts,
            names=table.question_ids or ("",) * len(table),
            index=index,
        )


@dataclass(frozen=True)
class NeighboursModel:
    """The labelled questions, searchable, and who scored what on them."""

    expert_ids: tuple[str, ...]
    smoothing: Smoothing
    means: Floats
    """(E,) each expert's mean, shrunk to the pool's."""
    scores: Floats
    """(N, E), NaN where not measured."""
    texts: tuple[str, ...]
    names: tuple[str, ...]
    index: VectorIndex

    def predict(self, features: Features) -> Floats:
        predicted = np.empty((len(features), len(self.expert_ids)), np.float32)
        for start in range(0, len(features), _CHUNK):
            cosines, rows = self.index.search(features.vectors[start : start + _CHUNK], self.smoothing.k + 1)
            weights = _weights(self.smoothing, cosines, rows)
            sums, masses = _totals(weights, self.scores[rows[:, : weights.shape[1]]])
            predicted[start : start + _CHUNK] = _smoothed(sums, masses, self.means, self.smoothing.mass)
        return predicted

    def explain(self, features: Features, row: int) -> Mapping[str, Any]:
        cosines, rows = self.index.search(features.vectors[row : row + 1], self.smoothing.k + 1)
        weights = _weights(self.smoothing, cosines, rows)[0]
        total = float(weights.sum())
        # In the linear kernel the farthest weighs nothing; with all at one distance nobody does.
        shares = weights / total if total else np.zeros_like(weights)
        near = [place for place in range(len(weights)) if rows[0][place] >= 0]
        shown = [
            {
                "question": self.names[rows[0][place]] or shortened(self.texts[rows[0][place]], _MAX_TEXT),
                "similarity": round(float(cosines[0][place]), 4),
                "weight": round(float(shares[place]), 4),
                "scores": {
                    expert_id: None if math.isnan(score) else round(score, 4)
                    for expert_id, score in zip(self.expert_ids, self.scores[rows[0][place]].tolist(), strict=True)
                },
            }
            for place in near[:_MAX_EXPLAINED]
        ]
        return {
            "neighbours": shown,
            "num_neighbours": len(near),
            "kernel": self.smoothing.kernel,
            "width": self.smoothing.width,
            "own_mean_weight": round(self.smoothing.mass / (self.smoothing.mass + total), 4) if self.smoothing.mass + total else 1.0,
            "means": {expert_id: round(float(mean), 4) for expert_id, mean in zip(self.expert_ids, self.means, strict=True)},
        }

    def with_expert(self, expert_id: str, features: Features, table: OutcomeTable) -> NeighboursModel:
        """Questions that are known by their text get the expert's score; others become new neighbours, with that score alone."""
        column = score_matrix(table)[:, column_of(table.expert_ids, expert_id)]
        place = {text: number for number, text in enumerate(self.texts)}
        known = np.array([place.get(text, -1) for text in features.texts], np.int64)
        fresh = [number for number in np.flatnonzero(known < 0).tolist() if not np.isnan(column[number])]
        own = np.full(len(self.texts) + len(fresh), np.nan, np.float32)
        own[known[known >= 0]] = column[known >= 0]
        own[len(self.texts) :] = column[fresh]
        kept = [other for other, name in enumerate(self.expert_ids) if name != expert_id]
        unmeasured = np.full((len(fresh), len(kept)), np.nan, np.float32)
        scores = np.column_stack([np.concatenate([self.scores[:, kept], unmeasured]), own])
        return replace(
            self._with_questions(fresh, features, table),
            expert_ids=(*(self.expert_ids[other] for other in kept), expert_id),
            means=np.append(self.means[kept], mean_scores(scores)[-1]).astype(np.float32),
            scores=scores,
        )

    def without_expert(self, expert_id: str) -> NeighboursModel:
        kept = others_than(self.expert_ids, expert_id)
        return replace(self, expert_ids=tuple(self.expert_ids[n] for n in kept), means=self.means[kept], scores=self.scores[:, kept])

    def _with_questions(self, rows: list[int], features: Features, table: OutcomeTable) -> NeighboursModel:
        if not rows:
            return self
        return replace(
            self,
            texts=self.texts + tuple(features.texts[n] for n in rows),
            names=self.names + tuple(table.question_ids[n] if table.question_ids else "" for n in rows),
            index=self.index.with_vectors(features.vectors[rows]),
        )


def _weights(smoothing: Smoothing, cosines: Floats, rows: np.typing.NDArray[np.int64]) -> Floats:
    """(n, k) of the *k* nearest, 0 where there is no neighbour. *cosines* may have one more, the first that is too far."""
    near = cosines[:, : smoothing.k]
    weights: Floats
    if smoothing.kernel == "uniform":
        weights = np.ones_like(near)
    elif smoothing.kernel == "linear":
        # Triangular: nothing at the distance of the first that is too far.
        distances = np.sqrt(np.maximum(2 - 2 * cosines, 0))
        weights = np.maximum(1 - distances[:, : smoothing.k] / np.maximum(distances[:, -1:], 1e-6), 0)
    else:
        weights = np.exp((near - 1) / np.float32(smoothing.width))
    return np.where(rows[:, : smoothing.k] < 0, np.float32(0.0), weights)


def _totals(weights: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Weighted sums of *scores* (n, k, E) and the weights that they were measured with, (n, E) each."""
    measured = ~np.isnan(scores)
    sums = np.einsum("nk,nke->ne", weights, np.where(measured, scores, np.float32(0.0)))
    return sums, np.einsum("nk,nke->ne", weights, measured.astype(np.float32))


def _smoothed(sums: Floats, masses: Floats, means: Floats, mass: float) -> Floats:
    total = masses + mass
    smoothed = (sums + mass * means) / np.where(total > 0, total, 1.0)
    clipped: Floats = np.clip(np.where(total > 1e-12, smoothed, means), 0.0, 1.0)
    return clipped


def _choose(options: NeighboursOptions, index: VectorIndex, vectors: Floats, scores: Floats, means: Floats, *, seed: int) -> Smoothing:
    """The smoothing that compares experts best on training questions, each left out in turn."""
    tried = list(_tried(options))
    rng = np.random.default_rng(seed)
    own = np.sort(rng.permutation(len(vectors))[:_MAX_LEFT_OUT]).astype(np.int64)
    widest = max(smoothing.k for smoothing, _ in tried)
    cosines, rows = index.neighbours_of(vectors[own], own, widest + 1)
    if not rows.shape[1]:
        return replace(tried[0][0], mass=1.0)
    best: tuple[float, Smoothing] | None = None
    truth = scores[own]
    for smoothing, group in itertools.groupby(tried, key=lambda pair: pair[0]):
        part = slice(0, min(smoothing.k + 1, rows.shape[1]))
        weights = _weights(smoothing, cosines[:, part], rows[:, part])
        totals = [
            _totals(weights[at : at + _CHUNK], scores[rows[at : at + _CHUNK, : weights.shape[1]]]) for at in range(0, len(own), _CHUNK)
        ]
        sums, masses = (np.concatenate(parts) for parts in zip(*totals, strict=True))
        unit = float(np.median(weights.sum(axis=1)))
        for _, shrinkage in group:
            found = replace(smoothing, mass=shrinkage * unit)
            error = contrast_error(_smoothed(sums, masses, means, found.mass), truth)
            if best is None or error < best[0]:
                best = error, found
    assert best is not None  # noqa: S101 - there is always one to try
    return best[1]


def _tried(options: NeighboursOptions) -> Iterator[tuple[Smoothing, float]]:
    """Smoothings and shrinkages that the options leave open, those of one smoothing next to each other."""
    kernels = KERNELS if options.kernel is None else (options.kernel,)
    widths = _WIDTHS if options.width is None else (options.width,)
    counts = _NUM_NEIGHBOURS if options.k is None else (options.k,)
    shrinkages = _SHRINKAGES if options.shrinkage is None else (options.shrinkage,)
    for kernel, k in itertools.product(kernels, counts):
        for width in widths if kernel == "gaussian" else widths[:1]:
            for shrinkage in shrinkages:
                yield Smoothing(kernel, width, k, 0.0), shrinkage
