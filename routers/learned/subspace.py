"""Subspace affinity: how much of a query lies in the directions of the questions that an expert wins.

MADE-IT (continual merging) keeps, per expert, the leading principal directions of its data, routes by the norm of a query's projection
onto them, and adds a new expert only when its affinity with all that are there is below an adaptive threshold. The directions are of
the uncentred vectors, so that the projection of a unit vector has a norm in [0, 1]. An expert's data are the questions that it wins
(``wins``), not all that it can answer: where most experts can answer most questions, those would be the same directions for all.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from domain.outcomes import OutcomeTable
from routers.learned.base import Features, Floats, checked, column_of, others_than, pool_mean, score_matrix, was_measured
from routers.learned.link import Link
from routers.learned.options import Number, option, parse
from routers.learned.wins import winners

_MAX_LINKED = 5000
"""Training questions that scores are calibrated on."""
_PART = 4
"""A subspace has at most one in so many of the dimensions, and of the questions that span it."""


@dataclass(frozen=True, slots=True)
class SubspaceOptions:
    rank: int = option(Number(1, 512, whole=True), 64)
    """Directions kept per expert, at most; and of the vectors' dimensions and of the expert's questions at most a quarter, for more
    would hold everything."""
    deviations: float = option(Number(-10, 10), 1.0)
    """A new expert is admitted below the mean affinity of the present ones with each other plus so many standard deviations."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a new expert covers what the present ones do not. Affinities are in [0, 1]."""

    admitted: bool
    nearest: str | None
    """Which present expert is most like it."""
    affinity: float
    threshold: float


class SubspaceRouter:
    """Norm of the projection onto each expert's subspace."""

    name = "subspace"

    def __init__(self, options: SubspaceOptions | None = None) -> None:
        self._options = options or SubspaceOptions()

    @classmethod
    def with_options(cls, values: Mapping[str, Any]) -> SubspaceRouter:
        """Raises ``InvalidRequest`` for options that it does not take."""
        return cls(parse(SubspaceOptions, values, router=cls.name))

    def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> SubspaceModel:
        scores = checked(features, table, router=self.name)
        prior = pool_mean(scores)
        won_by = winners(table)
        model = SubspaceModel(
            expert_ids=table.expert_ids,
            bases=tuple(_basis(features.vectors[won_by == column], self._options.rank) for column in range(scores.shape[1])),
            measured=was_measured(scores),
            prior=prior,
            link=Link(),
            options=self._options,
        )
        rows = np.random.default_rng(seed).permutation(len(table))[:_MAX_LINKED]
        norms = model.norms(features.vectors[rows])
        near = norms > 0
        return replace(model, link=Link.fitted(norms, np.where(near | ~near.any(), scores[rows], np.nan), seed=seed))


@dataclass(frozen=True)
class SubspaceModel:
    """Every expert's subspace."""

    expert_ids: tuple[str, ...]
    bases: tuple[Floats, ...]
    """Per expert (r, D), orthonormal rows, the leading direction first."""
    measured: tuple[bool, ...]
    prior: float
    link: Link
    options: SubspaceOptions

    def norms(self, vectors: Floats) -> Floats:
        """(N, E) norms of the projections, in [0, 1]."""
        return np.stack([np.linalg.norm(vectors @ basis.T, axis=1) for basis in self.bases], axis=1)

    def predict(self, features: Features) -> Floats:
        return np.where(np.array(self.measured), self.link(self.norms(features.vectors)), self.prior)

    def explain(self, features: Features, row: int) -> Mapping[str, Any]:
        norms = self.norms(features.vectors[row : row + 1])[0]
        return {
            "projection": {expert_id: round(float(norm), 4) for expert_id, norm in zip(self.expert_ids, norms, strict=True)},
            "rank": {expert_id: len(basis) for expert_id, basis in zip(self.expert_ids, self.bases, strict=True)},
        }

    def admits(self, expert_id: str, features: Features, table: OutcomeTable) -> Admission:
        """Whether *expert_id*, by its column of *table*, is unlike all that are here. Without a question that it wins it is not
        admitted; where there are not yet two to compare, anybody else is."""
        column = column_of(table.expert_ids, expert_id)
        vectors = features.vectors[winners(table) == column]
        present = [(name, basis) for name, basis in zip(self.expert_ids, self.bases, strict=True) if len(basis) and name != expert_id]
        mutual = [_affinity(first, second) for (_, first), (_, second) in itertools.combinations(present, 2)]
        threshold = float(np.mean(mutual) + self.options.deviations * np.std(mutual)) if mutual else 1.0
        if not len(vectors) or not present:
            return Admission(bool(len(vectors)), None, 0.0, min(1.0, threshold))
        own = _basis(vectors, self.options.rank)
        # Experts that share nothing at all would let nobody in who is as like them as subspaces are by chance.
        threshold = float(np.clip(threshold, np.sqrt(len(own) / vectors.shape[1]), 1.0))
        affinities = [_affinity(own, basis) for _, basis in present]
        best = int(np.argmax(affinities))
        return Admission(affinities[best] < threshold, present[best][0], affinities[best], threshold)

    def with_expert(self, expert_id: str, features: Features, table: OutcomeTable) -> SubspaceModel:
        """Whether to add it is asked with ``admits``."""
        column = column_of(table.expert_ids, expert_id)
        scores = score_matrix(table)
        others = self._of([other for other, name in enumerate(self.expert_ids) if name != expert_id])
        return replace(
            others,
            expert_ids=(*others.expert_ids, expert_id),
            bases=(*others.bases, _basis(features.vectors[winners(table) == column], self.options.rank)),
            measured=(*others.measured, *was_measured(scores[:, [column]])),
        )

    def without_expert(self, expert_id: str) -> SubspaceModel:
        return self._of(others_than(self.expert_ids, expert_id))

    def _of(self, kept: list[int]) -> SubspaceModel:
        return replace(
            self,
            expert_ids=tuple(self.expert_ids[n] for n in kept),
            bases=tuple(self.bases[n] for n in kept),
            measured=tuple(self.measured[n] for n in kept),
        )


def _affinity(first: Floats, second: Floats) -> float:
    """Root mean square cosine of the principal angles between two subspaces, in [0, 1]."""
    return min(1.0, float(np.linalg.norm(first @ second.T) / np.sqrt(min(len(first), len(second)))))


def _basis(vectors: Floats, rank: int) -> Floats:
    """(at most *rank*, D) leading directions of *vectors* (n, D); none without vectors."""
    if not len(vectors):
        return np.zeros((0, vectors.shape[1]), np.float32)
    values, directions = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)
    leading = np.argsort(-values, kind="stable")[: max(1, min(rank, len(vectors) // _PART, vectors.shape[1] // _PART))]
    return directions[:, leading].T.astype(np.float32)
