"""The shapes that learned routers share.

Shapes in this package: N queries, E experts, D encoder dimensions. Scores are expected scores in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.outcomes import OutcomeTable
from domain.quoting import quoted

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Features:
    """What a learned router may look at of N queries. Made in one place (``routers.learned.features``) for fitting and for serving."""

    texts: tuple[str, ...]
    vectors: Floats
    """(N, D) unit vectors of the encoder, of the text as it is routed."""
    early: Floats | None = None
    """(N, D') unit vectors of an early layer of the encoder; None where it has none to tell."""

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, numbers: Sequence[int] | npt.NDArray[np.integer]) -> Features:
        """Those of these queries only, in this order."""
        places = np.asarray(numbers, np.int64)
        texts = tuple(self.texts[place] for place in places.tolist())
        return Features(texts, self.vectors[places], None if self.early is None else self.early[places])


class ScoreModel(Protocol):
    """Fitted. Immutable: what changes it returns a new one, so that a query in flight keeps what it began with."""

    @property
    def expert_ids(self) -> tuple[str, ...]:
        """The columns of what is predicted."""
        ...

    def predict(self, features: Features) -> Floats:
        """(N, E) expected scores in [0, 1]. Of one query under 2 ms beyond its features."""
        ...

    def explain(self, features: Features, row: int) -> Mapping[str, Any]:
        """Why query *row* is scored as it is: neighbours, category, centroid ... JSON values only."""
        ...


class CategorisingModel(ScoreModel, Protocol):
    """A model that knows what a query is about."""

    def category_of(self, features: Features, row: int) -> str | None:
        """The category that it takes query *row* for, as ``explain`` tells it; None when it does not know."""
        ...


class Estimator(Protocol):
    """A routing algorithm with its options, before it has seen anything."""

    @property
    def name(self) -> str: ...

    def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> ScoreModel:
        """The model of *table*, whose questions *features* describes row by row. Deterministic in *seed*.

        Raises ``InvalidRequest`` when the table is too small or lacks what this algorithm needs (categories, say), saying what.
        """
        ...


def score_matrix(table: OutcomeTable) -> Floats:
    """(N, E) float32, NaN where not measured; a view of the table, not a copy."""
    return np.frombuffer(table.scores, np.float32).reshape(len(table), len(table.expert_ids))


def mean_scores(scores: Floats, *, strength: float = 5.0) -> Floats:
    """(E,) each expert's mean score over what it was measured on, shrunk towards the pool's mean by *strength* answers.

    In [0, 1]; 0.5 for everybody when nobody was measured.
    """
    measured = ~np.isnan(scores)
    counts = measured.sum(axis=0)
    sums = np.where(measured, scores, 0.0).sum(axis=0)
    pool = float(sums.sum() / counts.sum()) if counts.sum() else 0.5
    means: Floats = (sums + strength * pool) / (counts + strength)
    return means


def columns_of(expert_ids: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    """Where each of *wanted* stands among *expert_ids*; those that do not are left out."""
    place = {expert_id: column for column, expert_id in enumerate(expert_ids)}
    return {expert_id: place[expert_id] for expert_id in wanted if expert_id in place}


class ExtendableModel(ScoreModel, Protocol):
    """A model that follows a changing pool without being fitted again: what it says of the other experts stays as it is."""

    def with_expert(self, expert_id: str, features: Features, table: OutcomeTable) -> ExtendableModel:
        """This model and *expert_id*, by what *table* says of it on the questions of *features*; in place of what was known
        of it. The other columns of *table* count only where an algorithm compares experts with each other.

        Raises ``InvalidRequest`` when *table* has no such expert.
        """
        ...

    def without_expert(self, expert_id: str) -> ExtendableModel:
        """This model without *expert_id*. Raises ``InvalidRequest`` when there is no such expert, or no other."""
        ...


class UpdatableModel(ScoreModel, Protocol):
    """A model that learns from one answer at a time."""

    def updated(self, vector: Floats, expert_id: str, score: float) -> UpdatableModel:
        """This model after *expert_id* scored *score*, in [0, 1], on the query of *vector* (D,)."""
        ...


def column_of(expert_ids: Sequence[str], expert_id: str) -> int:
    """Where *expert_id* stands. Raises ``InvalidRequest`` with the nearest known id."""
    if expert_id in expert_ids:
        return list(expert_ids).index(expert_id)
    raise InvalidRequest(f"the router knows no expert {quoted(expert_id)}; {did_you_mean(expert_id, tuple(expert_ids))}")


def others_than(expert_ids: Sequence[str], expert_id: str) -> list[int]:
    """The columns that are left without *expert_id*. Raises ``InvalidRequest`` when there is no such expert, or no other."""
    column = column_of(expert_ids, expert_id)
    if len(expert_ids) == 1:
        raise InvalidRequest(f"{quoted(expert_id)} is the router's only expert, it cannot be taken out")
    return [other for other in range(len(expert_ids)) if other != column]


def pool_mean(scores: Floats) -> float:
    """The mean of all measured cells, 0.5 when there is none: what is expected of an expert that nobody has measured."""
    measured = ~np.isnan(scores)
    return float(scores[measured].mean(dtype=np.float64)) if measured.any() else 0.5


def shrunk_mean(column: Floats, prior: float, *, strength: float = 5.0) -> float:
    """The mean of one expert's scores (N,), NaN where not measured, with *prior* as *strength* answers."""
    measured = column[~np.isnan(column)]
    return float((measured.sum(dtype=np.float64) + strength * prior) / (len(measured) + strength))


def was_measured(scores: Floats) -> tuple[bool, ...]:
    """(E,) who has a score at all."""
    return tuple(not bool(np.isnan(scores[:, column]).all()) for column in range(scores.shape[1]))


def checked(features: Features, table: OutcomeTable, *, router: str) -> Floats:
    """The scores of *table* (N, E). Raises ``InvalidRequest`` when there is nothing to fit *router* on, ``ValueError`` when
    features and table do not belong together."""
    if len(features) != len(table):
        raise ValueError(f"features of {len(features)} questions for a table of {len(table)}")
    if not table.expert_ids:
        raise InvalidRequest(f"the router {router!r} has no expert to choose: the table of outcomes has no column")
    if not len(table):
        raise InvalidRequest(f"the router {router!r} has nothing to learn from: measure experts on labelled questions first")
    return score_matrix(table)
