"""Pilot embeddings: centroids of the questions that an expert wins.

RouterRetriever (AAAI 2025): questions are grouped by (category, best expert), each group's encoder vectors are clustered (one centroid by
default), and a query goes to the expert of the centroid with the largest dot product. An expert is added or removed as its centroids.
Who wins a question that several answered equally well is said in ``wins``.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from domain.outcomes import OutcomeTable
from routers.learned.base import Features, Floats, checked, column_of, others_than, pool_mean, score_matrix, was_measured
from routers.learned.link import Link
from routers.learned.options import Number, option, parse
from routers.learned.wins import NOBODY, winners

_MAX_LINKED = 5000
"""Training questions that scores are calibrated on."""
_FARTHEST = -1.0
"""Cosine of an expert that was measured and won nothing."""


@dataclass(frozen=True, slots=True)
class PilotOptions:
    num_centroids: int = option(Number(1, 64, whole=True), 1)
    """Per category and expert."""
    min_share: float = option(Number(0, 1), 0.1)
    """Of a category's questions that somebody wins: an expert that wins fewer gets no centroid there, which would stand for its luck."""


@dataclass(frozen=True, slots=True)
class Centroid:
    """The middle of *num_questions* questions of *category* that an expert wins."""

    category: str | None
    num_questions: int


Pilots = tuple[Floats, tuple[Centroid, ...]]
"""One expert's: unit vectors (centroids, D), and what they are the middle of."""


class PilotRouter:
    """Nearest pilot embedding."""

    name = "pilot"

    def __init__(self, options: PilotOptions | None = None) -> None:
        self._options = options or PilotOptions()

    @classmethod
    def with_options(cls, values: Mapping[str, Any]) -> PilotRouter:
        """Raises ``InvalidRequest`` for options that it does not take."""
        return cls(parse(PilotOptions, values, router=cls.name))

    def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> PilotModel:
        scores = checked(features, table, router=self.name)
        prior = pool_mean(scores)
        won_by = winners(table)
        pilots = [_pilots(self._options, features.vectors, table, won_by, column, seed=seed) for column in range(len(table.expert_ids))]
        model = PilotModel(
            expert_ids=table.expert_ids,
            pilots=tuple(pilots),
            measured=was_measured(scores),
            prior=prior,
            link=Link(),
            options=self._options,
            seed=seed,
        )
        rows = np.random.default_rng(seed).permutation(len(table))[:_MAX_LINKED]
        cosines = model.cosines(features.vectors[rows])
        near = cosines > _FARTHEST
        return replace(model, link=Link.fitted(cosines, np.where(near | ~near.any(), scores[rows], np.nan), seed=seed))


@dataclass(frozen=True)
class PilotModel:
    """Every expert's centroids."""

    expert_ids: tuple[str, ...]
    pilots: tuple[Pilots, ...]
    """Per expert."""
    measured: tuple[bool, ...]
    prior: float
    link: Link
    options: PilotOptions
    seed: int

    def cosines(self, vectors: Floats) -> Floats:
        """(N, E) to the nearest centroid of each expert."""
        columns = [
            (vectors @ pilots.T).max(axis=1) if len(pilots) else np.full(len(vectors), _FARTHEST, np.float32) for pilots, _ in self.pilots
        ]
        return np.stack(columns, axis=1)

    def predict(self, features: Features) -> Floats:
        return np.where(np.array(self.measured), self.link(self.cosines(features.vectors)), self.prior)

    def explain(self, features: Features, row: int) -> Mapping[str, Any]:
        experts: dict[str, Any] = {}
        for expert_id, (pilots, centroids) in zip(self.expert_ids, self.pilots, strict=True):
            if not len(pilots):
                experts[expert_id] = None
                continue
            cosines = pilots @ features.vectors[row]
            best = int(cosines.argmax())
            experts[expert_id] = {
                "category": centroids[best].category,
                "num_questions": centroids[best].num_questions,
                "similarity": round(float(cosines[best]), 4),
            }
        return {"nearest_centroid": experts, "num_centroids": sum(len(pilots) for pilots, _ in self.pilots)}

    def with_expert(self, expert_id: str, features: Features, table: OutcomeTable) -> PilotModel:
        """What the expert wins is told against the other columns of *table*."""
        column = column_of(table.expert_ids, expert_id)
        scores = score_matrix(table)[:, column]
        others = self._of([other for other, name in enumerate(self.expert_ids) if name != expert_id])
        return replace(
            others,
            expert_ids=(*others.expert_ids, expert_id),
            pilots=(*others.pilots, _pilots(self.options, features.vectors, table, winners(table), column, seed=self.seed)),
            measured=(*others.measured, *was_measured(scores[:, None])),
        )

    def without_expert(self, expert_id: str) -> PilotModel:
        return self._of(others_than(self.expert_ids, expert_id))

    def _of(self, kept: list[int]) -> PilotModel:
        return replace(
            self,
            expert_ids=tuple(self.expert_ids[n] for n in kept),
            pilots=tuple(self.pilots[n] for n in kept),
            measured=tuple(self.measured[n] for n in kept),
        )


def _pilots(
    options: PilotOptions, vectors: Floats, table: OutcomeTable, won_by: npt.NDArray[np.int64], column: int, *, seed: int
) -> Pilots:
    """The centroids of the expert in *column*; *won_by* (N,) are the questions' winners."""
    groups: dict[str | None, list[int]] = defaultdict(list)
    decided: dict[str | None, int] = defaultdict(int)
    for row in np.flatnonzero(won_by != NOBODY).tolist():
        category = table.categories[row] if table.categories else None
        decided[category] += 1
        if won_by[row] == column:
            groups[category].append(row)
    centres, told = [np.zeros((0, vectors.shape[1]), np.float32)], []
    for category, rows in groups.items():
        if len(rows) < options.min_share * decided[category]:
            continue
        for centre, size in _clustered(vectors[rows], options.num_centroids, seed):
            centres.append(centre[None])
            told.append(Centroid(category, size))
    return np.concatenate(centres), tuple(told)


def _clustered(vectors: Floats, k: int, seed: int) -> list[tuple[Floats, int]]:
    """At most *k* centroids as unit vectors, and how many of *vectors* each stands for."""
    groups = np.zeros(len(vectors), np.int64)
    if k > 1 and len(vectors) > k:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # equal questions make fewer clusters, which is right
            groups = KMeans(k, n_init=1, random_state=seed).fit_predict(vectors)
    found = []
    for group in np.unique(groups):
        members = vectors[groups == group]
        centre = members.mean(axis=0, dtype=np.float64)
        length = float(np.linalg.norm(centre))
        if length > 1e-9:
            found.append(((centre / length).astype(np.float32), len(members)))
    return found
