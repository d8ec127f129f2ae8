"""The recommended router: several estimators of how much better than the others each expert does, weighted by what they were right about.

Its own components, all fitted on how far an expert's score lies from the question's level (what experts score on it on average):

* ``kinds``: the mean of the query's kind (``routers.learned.kinds``), soft;
* ``gated``: a ridge regression per kind (``gated``);
* ``forest``: extremely randomised trees over the surface, the encoder's late and early directions and the kinds (``forest``);
* ``wording``: the same over early directions and kinds.

What they say of a query unlike all training questions is taken by a share only (``familiarity``). Any router of the catalogue can be one
more component. Weights are those with the least squared error on questions that a component did not see
(trees: those that a tree was not grown on; ridge: each left out, in closed form; others: folds), not negative, and held near equal
ones: stacking (Wolpert 1992; Breiman 1996).

An expert that comes is solved alone in ``kinds`` and ``gated``; in the trees its means are taken in the nodes that are there; routers of
the catalogue follow as they can. Kinds, splits, weights and what is said of the others stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from domain.errors import InvalidRequest
from domain.outcomes import OutcomeTable
from domain.quoting import quoted
from routers.learned.base import (
    Estimator,
    ExtendableModel,
    Features,
    Floats,
    ScoreModel,
    checked,
    column_of,
    mean_scores,
    others_than,
    pool_mean,
    score_matrix,
    was_measured,
)
from routers.learned.blend_options import OWN, BlendOptions, parsed
from routers.learned.design import Design, Rows
from routers.learned.familiarity import Familiarity
from routers.learned.forest import Forest
from routers.learned.gated import GatedRidge
from routers.learned.kinds import Kinds
from routers.learned.text_features import NAMES

Ints = npt.NDArray[np.int64]
Factory = Callable[[Mapping[str, Any]], Estimator]

_MAX_JUDGED = 6_000
"""Questions that weights are learnt on; there are few weights."""
_MIN_JUDGED = 60
"""Below it all components weigh the same."""
_EQUAL_STRENGTH = 0.1
"""Of the pull of weights towards equal ones, in the mean squared contribution of a component over all judged questions."""
_PROFILE_STRENGTH = 0.5
"""Questions of a kind that its mean per expert is shrunk by."""
_LEVEL_STRENGTH = 1.0
"""Answers on a question that its level is shrunk by, where some experts were not measured."""
_OFFSET_STRENGTH = 5.0
"""Answers that an expert which comes is shrunk by, to the level of its questions."""
_WORDING_TREES = 2 / 3
"""Of the number of trees."""
_MAX_REASONS = 6
_MAX_KINDS_TOLD = 4


class BlendRouter:
    """A weighted combination of estimators."""

    name = "blend"

    def __init__(self, options: BlendOptions | None = None, others: Mapping[str, Estimator] | None = None) -> None:
        """*others*: the components that are not of its own, by name."""
        self._options = options or BlendOptions()
        self._others = others or {}

    @classmethod
    def with_options(cls, values: Mapping[str, Any], *, catalogue: Mapping[str, Factory]) -> BlendRouter:
        """Components that are not of its own are made by *catalogue*. Raises ``InvalidRequest`` for options that it does not take."""
        options = parsed(values, router=cls.name, others=[name for name in catalogue if name != cls.name])
        others = {name: catalogue[name](options.component_options.get(name, {})) for name in options.components if name not in OWN}
        return cls(options, others)

    def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> BlendModel:
        scores = checked(features, table, router=self.name).astype(np.float64)
        options, rng = self._options, np.random.default_rng(seed)
        means, pool = mean_scores(scores), pool_mean(scores)
        everywhere = means - means.mean()
        level = _levels(scores, means)
        deviations = scores - level[:, None]
        design, rows = Design.of(features, seed=seed)
        kinds, shares = Kinds.learnt(_kind_rows(rows), table.categories or [None] * len(table), seed=seed)
        profile = _profile(shares, deviations, everywhere)
        by_kind = shares @ profile
        judged = np.sort(rng.permutation(len(rows))[:_MAX_JUDGED])
        said: dict[str, Floats] = {"kinds": by_kind[judged]}
        targets = np.column_stack([deviations, level])
        gated, left_out = GatedRidge.fitted(
            shares,
            _gated_rows(rows),
            targets,
            means=np.column_stack([by_kind, level]),
            offsets=np.append(everywhere, pool),
            judged=judged,
        )
        said["gated"] = left_out[:, :-1]
        filled = np.where(np.isnan(deviations), by_kind, deviations)
        forests = {}
        for name, num_trees in (("forest", options.trees), ("wording", max(1, round(_WORDING_TREES * options.trees)))):
            if name in options.components and scores.shape[1] > 1:
                tree_rows = _tree_rows(name, rows, shares)
                forests[name], outside = Forest.grown(tree_rows, filled, judged, num_trees=num_trees, seed=int(rng.integers(2**31)))
                said[name] = np.where(np.isnan(outside), by_kind[judged], outside)
        familiarity = None
        if options.shrink_unfamiliar:
            familiarity = Familiarity.learnt(_compared_rows(rows), shares, _gated_rows(rows), filled, seed=seed)
        others = {name: estimator.fit(features, table, seed=seed) for name, estimator in self._others.items()}
        components = tuple(name for name in options.components if name in said or name in others)
        weights = self._given(components)
        if weights is None:
            for name, estimator in self._others.items():
                scored = _out_of_fold(estimator, features, table, judged, folds=options.folds, seed=seed)
                said[name] = scored - scored.mean(axis=1, keepdims=True)
            weights = _stacked(np.stack([said[name] for name in components]), deviations[judged])
        return BlendModel(
            expert_ids=table.expert_ids,
            components=components,
            weights=weights,
            design=design,
            kinds=kinds,
            profile=profile,
            gated=gated,
            forests=forests,
            others=others,
            familiarity=familiarity,
            everywhere=everywhere.astype(np.float32),
            pool=pool,
            measured=was_measured(scores),
        )

    def _given(self, components: Sequence[str]) -> Floats | None:
        if self._options.weights is None:
            return None
        weights: Floats = np.array([self._options.weights.get(name, 0.0) for name in components])
        return weights / max(float(weights.sum()), 1e-12)


@dataclass(frozen=True, slots=True)
class Said:
    """What a blend's parts say of n queries."""

    rows: Rows
    shares: Floats
    """(n, K) of each kind."""
    level: Floats
    """(n,)"""
    parts: Mapping[str, Floats]
    """By component (n, E)."""
    trusted: Floats
    """(n,)"""


@dataclass(frozen=True)
class BlendModel:
    """Fitted; how an expert scores is the question's level and the weighted deviations from it."""

    expert_ids: tuple[str, ...]
    components: tuple[str, ...]
    weights: Floats
    """(components,), not negative."""
    design: Design
    kinds: Kinds
    profile: Floats
    """(K, E) how far from the level experts score on each kind."""
    gated: GatedRidge
    forests: Mapping[str, Forest]
    others: Mapping[str, ScoreModel]
    familiarity: Familiarity | None
    """None: every query is trusted to be like the training questions."""
    everywhere: Floats
    """(E,) how far from the level experts score on all training questions; what is said of a query unlike all of these."""
    pool: float
    """Mean of all outcomes."""
    measured: tuple[bool, ...]
    """(E,) who has an outcome at all; who has none is expected to score the pool's mean."""

    _last: list[tuple[Features, Said]] = field(default_factory=list, init=False, repr=False, compare=False)
    """The query that was asked about last and what was said of it: it is explained from that. Never carried over by ``replace``."""

    def predict(self, features: Features) -> Floats:
        said = self._said(features)
        scores = said.level[:, None] + self._deviations(said.parts, said.trusted)
        clipped: Floats = np.clip(np.where(self.measured, scores, self.pool), 0.0, 1.0).astype(np.float32)
        return clipped

    def explain(self, features: Features, row: int) -> Mapping[str, Any]:
        said = self._said(features if len(features) == 1 else features.rows([row]))
        rows, shares, level, parts, trusted = said.rows, said.shares[0], said.level, said.parts, said.trusted
        total = self._deviations(parts, trusted)[0]
        best = int(np.where(self.measured, total, -np.inf).argmax()) if any(self.measured) else 0
        order = np.argsort(-shares, kind="stable")[:_MAX_KINDS_TOLD].tolist()
        told: dict[str, Any] = {
            "kinds": [{"kind": self.kinds.names[kind], "share": round(float(shares[kind]), 4)} for kind in order],
            "level": round(float(level[0]), 4),
            "trusted": round(float(trusted[0]), 4),
            "components": {
                name: {
                    "weight": round(float(weight), 4),
                    "deviation": {expert_id: round(float(by), 4) for expert_id, by in zip(self.expert_ids, parts[name][0], strict=True)},
                }
                for name, weight in zip(self.components, self.weights, strict=True)
            },
            "reasons": {"expert": self.expert_ids[best], "columns": self._reasons(rows, shares, best)},
        }
        if self.kinds.labelled:
            told["category"] = self.kinds.names[order[0]]
        return told

    def category_of(self, features: Features, row: int) -> str | None:
        if not self.kinds.labelled:
            return None
        said = self._said(features if len(features) == 1 else features.rows([row]))
        return self.kinds.names[int(said.shares[0].argmax())]

    def _said(self, features: Features) -> Said:
        """Of each query; of one that was asked about last, without doing it again."""
        for last, said in self._last[:1]:
            if last is features:
                return said
        rows = self.design.rows(features)
        shares = self.kinds.shares(_kind_rows(rows))
        level, parts = self._parts(features, rows, shares)
        said = Said(rows, shares, level, parts, self._trusted(rows))
        if len(features) == 1:
            self._last[:] = [(features, said)]
        return said

    def with_expert(self, expert_id: str, features: Features, table: OutcomeTable) -> BlendModel:
        """Raises ``InvalidRequest`` when *table* has no such expert, or a component cannot be extended."""
        column = column_of(table.expert_ids, expert_id)
        fixed = [name for name, model in self.others.items() if not hasattr(model, "with_expert")]
        if fixed:
            raise InvalidRequest(f"the component {quoted(fixed[0])} of the blend cannot take up an expert; fit the blend anew")
        others = {name: cast(ExtendableModel, model).with_expert(expert_id, features, table) for name, model in self.others.items()}
        base = self.without_expert(expert_id) if expert_id in self.expert_ids else self
        scores = score_matrix(table).astype(np.float64)
        known = np.flatnonzero(~np.isnan(scores[:, column]))
        rows = base.design.rows(features).taken(known)
        shares = base.kinds.shares(_kind_rows(rows))
        expected = base.gated.predict(shares, _gated_rows(rows))[:, -1].astype(np.float64)
        present = [other for other, name in enumerate(table.expert_ids) if name in base.expert_ids]
        if present:
            # What the others scored on these very questions tells their level better than any prediction.
            own = scores[known][:, present]
            level = np.where(np.isnan(own).all(axis=1), expected, _levels(own, mean_scores(scores[:, present])))
        else:
            level = expected
        target = scores[known, column] - level
        offset = float(target.sum() / (len(target) + _OFFSET_STRENGTH))
        profile = _profile(shares, target[:, None], np.array([offset]))
        forests = {name: forest.with_output(_tree_rows(name, rows, shares), target, offset) for name, forest in base.forests.items()}
        return replace(
            base,
            expert_ids=(*base.expert_ids, expert_id),
            profile=np.column_stack([base.profile, profile]),
            gated=base.gated.with_column(shares, _gated_rows(rows), target, offset),
            forests=forests,
            others=others,
            everywhere=np.append(base.everywhere, np.float32(offset)),
            measured=(*base.measured, bool(len(known))),
        )

    def without_expert(self, expert_id: str) -> BlendModel:
        kept = others_than(self.expert_ids, expert_id)
        return replace(
            self,
            expert_ids=tuple(self.expert_ids[n] for n in kept),
            profile=self.profile[:, kept],
            gated=self.gated.with_columns(kept),
            forests={name: forest.with_outputs(kept) for name, forest in self.forests.items()},
            others={name: cast(ExtendableModel, model).without_expert(expert_id) for name, model in self.others.items()},
            everywhere=self.everywhere[kept],
            measured=tuple(self.measured[n] for n in kept),
        )

    def _trusted(self, rows: Rows) -> Floats:
        """(n,) the share of what is said that counts."""
        return np.ones(len(rows)) if self.familiarity is None else self.familiarity.share(_compared_rows(rows))

    def _deviations(self, parts: Mapping[str, Floats], trusted: Floats) -> Floats:
        """(n, E) from the level, of what the components say put together."""
        said = np.einsum("c,cne->ne", self.weights, np.stack([parts[name] for name in self.components]))
        deviations: Floats = self.everywhere + trusted[:, None] * (said - self.everywhere)
        return deviations

    def _parts(self, features: Features, rows: Rows, shares: Floats) -> tuple[Floats, dict[str, Floats]]:
        """The level (n,) and what each component says (n, E)."""
        gated = self.gated.predict(shares, _gated_rows(rows))
        parts: dict[str, Floats] = {"kinds": shares @ self.profile, "gated": gated[:, :-1]}
        for name, forest in self.forests.items():
            parts[name] = forest.predict(_tree_rows(name, rows, shares))
        for name, model in self.others.items():
            # Less the level, not the mean of its own columns, which would change for everybody when an expert comes.
            parts[name] = model.predict(features) - gated[:, -1:]
        return gated[:, -1], parts

    def _reasons(self, rows: Rows, shares: Floats, expert: int) -> list[dict[str, Any]]:
        """What moved the trees most for *expert*, by column."""
        if "forest" not in self.forests:
            return []
        row = _tree_rows("forest", rows, shares[None])[0]
        added = self.forests["forest"].reasons(row, expert)
        late, early = (min(_TREE_COLUMNS["forest"][at], block.shape[1]) for at, block in ((1, rows.late), (2, rows.early)))
        names = [
            *NAMES,
            *(f"topic {n + 1}" for n in range(late)),
            *(f"wording {n + 1}" for n in range(early)),
            *(f"kind {name}" for name in self.kinds.names),
        ]
        strongest = np.argsort(-np.abs(added), kind="stable")[:_MAX_REASONS].tolist()
        return [
            {"column": names[place], "value": round(float(row[place]), 4), "adds": round(float(added[place]), 4)}
            for place in strongest
            if added[place]
        ]


_TREE_COLUMNS = {"forest": (True, 60, 60), "wording": (False, 0, 128)}
"""Of each forest: whether it sees the surface, and how many late and early directions."""


def _tree_rows(name: str, rows: Rows, shares: Floats) -> Floats:
    surface, late, early = _TREE_COLUMNS[name]
    if not early or not rows.early.shape[1]:
        late = max(late, early)  # an encoder with one view
    parts = [rows.surface] if surface else []
    return np.concatenate([*parts, rows.late[:, :late], rows.early[:, :early], shares], axis=1, dtype=np.float32)


def _kind_rows(rows: Rows) -> Floats:
    return rows.beside(128, 128, 64, marks_length=1.8)


def _compared_rows(rows: Rows) -> Floats:
    return rows.beside(128, 128, 0, marks_length=0.0)


def _gated_rows(rows: Rows) -> Floats:
    # The early view twice as far as the surface, the late one only where there is no other: measured on public tasks.
    early = rows.early.shape[1] > 0
    return rows.beside(0 if early else 96, 96, 24, marks_length=0.5)


def _levels(scores: Floats, means: Floats) -> Floats:
    """(N,) what experts score on each question on average, all of them: those that were not measured on it differ from the average as
    they do elsewhere."""
    measured = ~np.isnan(scores)
    pool = float(means.mean())
    differences = np.where(measured, scores - (means - pool), 0.0).sum(axis=1)
    complete = measured.all(axis=1)
    counts = measured.sum(axis=1)
    shrunk = (differences + _LEVEL_STRENGTH * pool) / (counts + _LEVEL_STRENGTH)
    levels: Floats = np.where(complete, differences / np.maximum(counts, 1), shrunk)
    return levels


def _profile(shares: Floats, deviations: Floats, everywhere: Floats) -> Floats:
    """(K, E) least squares from shares to deviations over what was measured, shrunk to an expert's deviation *everywhere* (E,)."""
    profile = np.empty((shares.shape[1], deviations.shape[1]))
    for column in range(deviations.shape[1]):
        known = ~np.isnan(deviations[:, column])
        some = shares[known].astype(np.float64)
        gram = some.T @ some + _PROFILE_STRENGTH * np.eye(shares.shape[1])
        profile[:, column] = np.linalg.solve(gram, some.T @ deviations[known, column] + _PROFILE_STRENGTH * everywhere[column])
    return profile.astype(np.float32)


def _out_of_fold(estimator: Estimator, features: Features, table: OutcomeTable, judged: Ints, *, folds: int, seed: int) -> Floats:
    """What *estimator* predicts of the questions *judged* (len, E), fitted without them."""
    fold_of = np.random.default_rng(seed).permutation(len(judged)) % folds
    predicted = np.zeros((len(judged), len(table.expert_ids)), np.float32)
    for fold in range(folds):
        held = judged[fold_of == fold]
        rest = np.setdiff1d(np.arange(len(table)), held)
        if len(held) and len(rest):
            model = estimator.fit(features.rows(rest), table.rows(rest.tolist()), seed=seed)
            predicted[fold_of == fold] = model.predict(features.rows(held))
    return predicted


def _stacked(said: Floats, deviations: Floats) -> Floats:
    """(components,) weights, not negative, that make *said* (components, n, E) fit *deviations* (n, E), NaN where not measured, best."""
    count = len(said)
    equal = np.full(count, 1.0 / count)
    if said.shape[1] < _MIN_JUDGED:
        return equal
    from scipy.optimize import nnls

    known = ~np.isnan(deviations)
    columns = said[:, known].astype(np.float64)
    pull = np.sqrt(_EQUAL_STRENGTH * np.square(columns).sum(axis=1).mean() / count)
    if pull <= 0:
        return equal
    gram = columns @ columns.T + pull**2 * np.eye(count)
    moments = columns @ deviations[known] + pull**2 * equal
    # Least squares by its normal equations: the root of a small matrix instead of a tall one.
    root = np.linalg.cholesky(gram)
    weights: Floats = nnls(root.T, np.linalg.solve(root, moments))[0]
    return weights if weights.any() else equal
