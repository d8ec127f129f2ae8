"""Closed-form ridge regression from a query's vector to what each expert scores: exact updates, an expert is a column.

DUME (Training-Free Dynamic Upcycling) keeps ``A = XᵀX`` and ``B = XᵀY`` with a bias column and solves ``(A + λI) W = B``; new data is
an update of both, a new expert a new column. FlyPrompt lifts the vectors with a fixed random ReLU projection first, and averages
several heads that forget at different rates. Here the targets are scores less the pool's mean, so that an expert without answers is
expected to score that, and λ is the one whose choices score best on the training questions, each left out in turn (which ridge has
in closed form).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from domain.errors import InvalidRequest
from domain.outcomes import OutcomeTable
from routers.learned.base import Features, Floats, checked, column_of, others_than, pool_mean, score_matrix
from routers.learned.criteria import choice_loss
from routers.learned.options import Number, Several, option, parse

_LAMBDAS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
_BIAS_LAMBDA = 1.0
"""Of the bias column: the pool's mean is worth one answer."""
_MAX_LEFT_OUT = 2000
"""Training questions that λ is judged on; more change no choice and cost time."""
_MAX_FEATURES = 4096
"""Random features of all heads together; an update takes their square."""
_MAX_GROUPS = 4
"""Groups of experts that λ is judged on, the largest: each takes as long as the first."""
_CHUNK = 8192
"""Queries that are lifted at once."""


@dataclass(frozen=True, slots=True)
class RidgeOptions:
    penalty: float | None = option(Number(0, 1e6, above=True))
    """λ. None: chosen by leaving one out."""
    random_features: int = option(Number(0, _MAX_FEATURES, whole=True), 0)
    """Of a ReLU projection; 0 takes the vectors as they are."""
    forgetting: tuple[float, ...] = option(Several(Number(0, 1, above=True)), (1.0,))
    """One head per factor: what an update leaves of the weight of earlier answers. 1 forgets nothing. The heads are averaged."""
    prior: float | None = option(Number(0, 1))
    """What an expert without answers is expected to score; None: the pool's mean when the router is fitted."""


class RidgeRouter:
    """Ridge regression, one column per expert."""

    name = "ridge"

    def __init__(self, options: RidgeOptions | None = None) -> None:
        self._options = options or RidgeOptions()

    @classmethod
    def with_options(cls, values: Mapping[str, Any]) -> RidgeRouter:
        """Raises ``InvalidRequest`` for options that it does not take."""
        options = parse(RidgeOptions, values, router=cls.name)
        if options.random_features * len(options.forgetting) > _MAX_FEATURES:
            raise InvalidRequest(
                f"router option 'random_features' is {options.random_features} for {len(options.forgetting)} heads ('forgetting'); both "
                f"multiplied are at most {_MAX_FEATURES}",
                param="router_options.random_features",
            )
        return cls(options)

    def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> RidgeModel:
        scores = checked(features, table, router=self.name)
        prior = pool_mean(scores) if self._options.prior is None else self._options.prior
        lift = Lift.drawn(features.vectors.shape[1], self._options.random_features, seed)
        groups = _groups(lift, features.vectors, scores, prior)
        penalty = self._options.penalty or _choose(groups, lift, features.vectors, scores, prior=prior, seed=seed)
        columns = _solved(groups, penalty, len(table.expert_ids), keep_grams=any(factor < 1 for factor in self._options.forgetting))
        return RidgeModel(
            expert_ids=table.expert_ids,
            prior=prior,
            penalty=penalty,
            lift=lift,
            heads=tuple(Head(factor, columns) for factor in self._options.forgetting),
        )


@dataclass(frozen=True)
class Lift:
    """Vectors (n, d) as the rows that are regressed on: (n, D), the last column 1."""

    projection: Floats | None
    """(d, D - 1), fixed; None for the vectors themselves."""

    @classmethod
    def drawn(cls, dimensions: int, num_features: int, seed: int) -> Lift:
        if not num_features:
            return cls(None)
        # Scaled so that lifted unit vectors have length 1 on average, and λ means the same with and without.
        return cls(np.random.default_rng(seed).standard_normal((dimensions, num_features)) * np.sqrt(2 / num_features))

    def __call__(self, vectors: Floats) -> Floats:
        rows = vectors.astype(np.float64) if self.projection is None else np.maximum(vectors @ self.projection, 0.0)
        return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)

    def width(self, dimensions: int) -> int:
        return 1 + (dimensions if self.projection is None else self.projection.shape[1])


@dataclass(frozen=True, slots=True)
class Group:
    """Experts that were measured on the same questions, and so share a matrix."""

    columns: np.typing.NDArray[np.int64]
    measured: np.typing.NDArray[np.bool_]
    """(N,)"""
    gram: Floats
    """(D, D) ``XᵀX`` over the questions that they were measured on."""
    moments: Floats
    """(D, columns) ``Xᵀ(Y - prior)``."""


@dataclass(frozen=True, slots=True)
class Column:
    """One expert in one head."""

    inverse: Floats
    """(D, D) ``(A + Λ)⁻¹``. Experts that were measured on the same questions share it until one of them is updated."""
    gram: Floats | None
    """(D, D) ``A``; only where something is forgotten, which has to leave Λ as it is."""
    moment: Floats
    """(D,) ``Xᵀ(y - prior)``."""
    weights: Floats
    """(D,)"""

    def updated(self, row: Floats, residual: float, factor: float, penalty: Floats) -> Column:
        """After *residual*, the score less the prior, was seen at the lifted vector *row* (D,)."""
        moment = factor * self.moment + row * residual
        if self.gram is None:
            # Sherman-Morrison: the inverse of a matrix and an outer product, exact in D² steps.
            reach = self.inverse @ row
            inverse = self.inverse - np.outer(reach, reach / (1 + row @ reach))
            return Column(inverse, None, moment, inverse @ moment)
        gram = factor * self.gram + np.outer(row, row)
        # No rank-one formula here: it would forget Λ with the answers, and what was not seen lately would have no bound.
        inverse = np.linalg.inv(gram + np.diag(penalty))
        return Column(inverse, gram, moment, inverse @ moment)


@dataclass(frozen=True, slots=True)
class Head:
    """All experts at one rate of forgetting."""

    factor: float
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class RidgeModel:
    """Scores as the prior and a linear function of the vector."""

    expert_ids: tuple[str, ...]
    prior: float
    """What an expert without answers is expected to score. It stays when experts come and answers come in: a measured expert's column
    depends on nobody else's answers."""
    penalty: float
    """λ. It stays too."""
    lift: Lift
    heads: tuple[Head, ...]

    @cached_property
    def _weights(self) -> Floats:
        """(D, E), the mean of the heads."""
        stacked = [np.stack([column.weights for column in head.columns], axis=1) for head in self.heads]
        mean: Floats = np.mean(stacked, axis=0)
        return mean

    def predict(self, features: Features) -> Floats:
        predicted = np.empty((len(features), len(self.expert_ids)), np.float32)
        for start in range(0, len(features), _CHUNK):
            part = slice(start, start + _CHUNK)
            predicted[part] = self.prior + self.lift(features.vectors[part]) @ self._weights
        return np.clip(predicted, 0.0, 1.0)

    def explain(self, features: Features, row: int) -> Mapping[str, Any]:
        lifted = self.lift(features.vectors[row : row + 1])[0]
        experts = {}
        for column, expert_id in enumerate(self.expert_ids):
            everywhere = float(self._weights[-1, column])
            first = self.heads[0].columns[column].inverse
            experts[expert_id] = {
                "everywhere": round(self.prior + everywhere, 4),
                "here": round(float(lifted @ self._weights[:, column]) - everywhere, 4),
                "unfamiliarity": round(float(np.sqrt(max(0.0, lifted @ first @ lifted))), 4),
            }
        return {
            "prior": round(self.prior, 4),
            "lambda": self.penalty,
            "random_features": 0 if self.lift.projection is None else self.lift.projection.shape[1],
            "experts": experts,
        }

    def updated(self, vector: Floats, expert_id: str, score: float) -> RidgeModel:
        """After one more answer of *expert_id*. With nothing forgotten it is what fitting on all answers gives (at this λ and prior)."""
        column = column_of(self.expert_ids, expert_id)
        if not 0.0 <= score <= 1.0:
            raise ValueError(f"a score is in [0, 1], not {score}")
        row = self.lift(vector[None])[0]
        penalty = _penalties(self.penalty, len(row))
        heads = []
        for head in self.heads:
            columns = list(head.columns)
            columns[column] = columns[column].updated(row, score - self.prior, head.factor, penalty)
            heads.append(Head(head.factor, tuple(columns)))
        return replace(self, heads=tuple(heads))

    def with_expert(self, expert_id: str, features: Features, table: OutcomeTable) -> RidgeModel:
        """The expert as a column, solved from its answers alone."""
        scores = score_matrix(table)[:, [column_of(table.expert_ids, expert_id)]]
        groups = _groups(self.lift, features.vectors, scores, self.prior)
        (column,) = _solved(groups, self.penalty, 1, keep_grams=self.heads[0].columns[0].gram is not None)
        kept = [other for other, name in enumerate(self.expert_ids) if name != expert_id]
        return self._of(kept, (expert_id,), (column,))

    def without_expert(self, expert_id: str) -> RidgeModel:
        return self._of(others_than(self.expert_ids, expert_id))

    def _of(self, kept: list[int], ids: tuple[str, ...] = (), columns: tuple[Column, ...] = ()) -> RidgeModel:
        heads = tuple(Head(head.factor, (*(head.columns[n] for n in kept), *columns)) for head in self.heads)
        return replace(self, expert_ids=(*(self.expert_ids[n] for n in kept), *ids), heads=heads)


def _penalties(penalty: float, width: int) -> Floats:
    """(D,) the diagonal of Λ."""
    return np.append(np.full(width - 1, penalty), _BIAS_LAMBDA)


def _groups(lift: Lift, vectors: Floats, scores: Floats, prior: float) -> list[Group]:
    measured = ~np.isnan(scores)
    patterns, numbers = _patterns(measured)
    width = lift.width(vectors.shape[1])
    whole, grams = np.zeros((width, width)), np.zeros((patterns.shape[1], width, width))
    moments = np.zeros((width, scores.shape[1]))
    # What is missing is summed where less is missing than there: of the two, the smaller number of products.
    inverted = patterns.mean(axis=0) > 0.5
    summed = patterns ^ inverted
    for start in range(0, len(vectors), _CHUNK):
        part = slice(start, start + _CHUNK)
        lifted = lift(vectors[part])
        whole += lifted.T @ lifted
        moments += lifted.T @ np.where(measured[part], scores[part].astype(np.float64) - prior, 0.0)
        for number in range(patterns.shape[1]):
            some = lifted[summed[part, number]]
            if len(some):
                grams[number] += some.T @ some
    grams = np.where(inverted[:, None, None], whole - grams, grams)
    columns = [np.flatnonzero(numbers == number) for number in range(patterns.shape[1])]
    return [Group(of, patterns[:, n], grams[n], moments[:, of]) for n, of in enumerate(columns)]


def _patterns(measured: np.typing.NDArray[np.bool_]) -> tuple[np.typing.NDArray[np.bool_], np.typing.NDArray[np.int64]]:
    """The distinct columns of *measured* (N, E), and which of them each column is."""
    packed = [column.tobytes() for column in np.packbits(measured, axis=0).T]
    place = {pattern: number for number, pattern in enumerate(dict.fromkeys(packed))}
    numbers = np.array([place[pattern] for pattern in packed], np.int64)
    first = [int(np.flatnonzero(numbers == number)[0]) for number in range(len(place))]
    return measured[:, first], numbers


def _solved(groups: list[Group], penalty: float, num_experts: int, *, keep_grams: bool) -> tuple[Column, ...]:
    columns: dict[int, Column] = {}
    for group in groups:
        inverse = np.linalg.inv(group.gram + np.diag(_penalties(penalty, len(group.gram))))
        gram = group.gram if keep_grams else None
        for place, column in enumerate(group.columns.tolist()):
            moment = group.moments[:, place].copy()
            columns[column] = Column(inverse, gram, moment, inverse @ moment)
    return tuple(columns[column] for column in range(num_experts))


def _choose(groups: list[Group], lift: Lift, vectors: Floats, scores: Floats, *, prior: float, seed: int) -> float:
    """The λ whose choices score best on training questions, each left out in turn: the residual over one less the leverage."""
    left_out = np.random.default_rng(seed).permutation(len(vectors))[:_MAX_LEFT_OUT]
    lifted = lift(vectors[left_out])
    truth = scores[left_out].astype(np.float64)
    errors = {}
    for penalty in _LAMBDAS:
        predicted = np.full_like(truth, np.nan)
        for group in sorted(groups, key=lambda group: -len(group.columns) * int(group.measured.sum()))[:_MAX_GROUPS]:
            rows = np.flatnonzero(group.measured[left_out])
            seen = lifted[rows]
            reach = np.linalg.solve(group.gram + np.diag(_penalties(penalty, len(group.gram))), seen.T)
            leverage = np.minimum(np.einsum("nd,dn->n", seen, reach), 1 - 1e-9)[:, None]
            cells = np.ix_(rows, group.columns)
            predicted[cells] = truth[cells] - (truth[cells] - prior - reach.T @ group.moments) / (1 - leverage)
        errors[penalty] = round(choice_loss(predicted, truth), 9)
    return min(_LAMBDAS, key=lambda penalty: (errors[penalty], -penalty))
