"""A router that learns from outcomes, as small as one can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from domain.errors import InvalidRequest
from domain.outcomes import OutcomeTable
from routers.learned.base import Features, Floats, score_matrix


@dataclass(frozen=True)
class NearestModel:
    """Expects what the nearest training question showed."""

    expert_ids: tuple[str, ...]
    vectors: Floats
    scores: Floats
    labels: tuple[str | None, ...]

    def predict(self, features: Features) -> Floats:
        return self.scores[self._nearest(features.vectors)]

    def explain(self, features: Features, row: int) -> Mapping[str, Any]:
        number = int(self._nearest(features.vectors[[row]])[0])
        return {"category": self.labels[number]} if self.labels else {"neighbour": number}

    def _nearest(self, vectors: Floats) -> Any:
        return (vectors @ self.vectors.T).argmax(axis=1)


@dataclass(frozen=True)
class NearestRouter:
    name: str = "nearest"
    smoothing: float = 0.3
    min_questions: int = 1

    def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> NearestModel:
        if len(table) < self.min_questions:
            raise InvalidRequest(f"the router {self.name!r} needs {self.min_questions} questions, there are {len(table)}")
        scores = np.nan_to_num(score_matrix(table), nan=0.5)
        blended = (1 - self.smoothing) * scores + self.smoothing * scores.mean(axis=0)
        return NearestModel(table.expert_ids, np.asarray(features.vectors), blended, table.categories)
