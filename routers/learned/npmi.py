"""Association of skills and experts as normalised pointwise mutual information.

RICE ("Two Experts ...") finds the experts to boost by the nPMI between an expert and a token. Here the events are "the question needs
the skill" and "the expert is right": ``log(p(right | skill) / p(right)) / -log p(right, skill)``, in [-1, 1]. Unlike a sum of ±1 it does
not grow with how frequent a skill is. A query has the skills of its nearest labelled questions; an expert's expected score is its mean,
shifted by its association with them, and the two most associated experts are boosted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from domain.errors import InvalidRequest
from domain.outcomes import OutcomeTable
from routers.learned.base import Features, Floats, checked, column_of, others_than, pool_mean, score_matrix, shrunk_mean, was_measured
from routers.learned.link import Link, logit
from routers.learned.options import Number, option, parse
from routers.learned.vector_index import VectorIndex

_PRIOR_ANSWERS = 5.0
"""What an expert's mean is worth in its share of right answers on one skill."""
_WIDTH = 0.1
"""A neighbour that is this much less similar weighs 1/e."""
_NUM_BOOSTED = 2
_MAX_LINKED = 5000
"""Training questions that scores are calibrated on."""
_MAX_EXPLAINED = 5


@dataclass(frozen=True, slots=True)
class NpmiOptions:
    k: int = option(Number(1, 1000, whole=True), 20)
    """Labelled questions that a query's skills come from."""
    boost: float = option(Number(1, 10), 1.0)
    """Factor on the association of the two most associated experts, where it is positive."""


class NpmiRouter:
    """Experts by their association with a query's skills."""

    name = "npmi"

    def __init__(self, options: NpmiOptions | None = None) -> None:
        self._options = options or NpmiOptions()

    @classmethod
    def with_options(cls, values: Mapping[str, Any]) -> NpmiRouter:
        """Raises ``InvalidRequest`` for options that it does not take."""
        return cls(parse(NpmiOptions, values, router=cls.name))

    def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> NpmiModel:
        scores = checked(features, table, router=self.name)
        labels = _labels(table)
        skills = tuple(sorted({skill for of_question in labels for skill in of_question}))
        if not skills:
            raise InvalidRequest("the router 'npmi' needs skills or categories of the labelled questions, and none has any")
        number = {skill: place for place, skill in enumerate(skills)}
        rows = np.array([row for row, of_question in enumerate(labels) if of_question], np.int64)
        labelled = tuple(tuple(number[skill] for skill in labels[row]) for row in rows)
        prior = pool_mean(scores)
        pairs = _pairs(labels, number)
        columns = [_column(scores[:, column], pairs, len(skills), prior) for column in range(scores.shape[1])]
        model = NpmiModel(
            expert_ids=table.expert_ids,
            skills=skills,
            associations=np.stack([associations for associations, _ in columns], axis=1),
            means=np.array([mean for _, mean in columns]),
            measured=was_measured(scores),
            prior=prior,
            link=Link(),
            labels=labelled,
            index=VectorIndex(features.vectors[rows], seed=seed),
            options=self._options,
        )
        some = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_MAX_LINKED])
        cosines, near = model.index.neighbours_of(features.vectors[rows[some]], some, self._options.k)
        fits = model.boosted(model.shares(cosines, near) @ model.associations)
        return replace(model, link=Link.fitted(fits, scores[rows[some]], base=logit(model.means), seed=seed))


@dataclass(frozen=True)
class NpmiModel:
    """Associations, and the labelled questions that tell a query's skills."""

    expert_ids: tuple[str, ...]
    skills: tuple[str, ...]
    associations: Floats
    """(S, E) in [-1, 1]."""
    means: Floats
    """(E,) each expert's mean, shrunk to the pool's."""
    measured: tuple[bool, ...]
    prior: float
    link: Link
    labels: tuple[tuple[int, ...], ...]
    """Places in ``skills`` per labelled question."""
    index: VectorIndex
    options: NpmiOptions

    def shares(self, cosines: Floats, rows: npt.NDArray[np.int64]) -> Floats:
        """(n, S) how much of each skill the neighbours (n, k) have; a row sums to 1, or to 0 without neighbours."""
        weights = np.where(rows < 0, 0.0, np.exp((cosines - 1.0) / _WIDTH))
        totals = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(totals > 0, totals, 1.0)
        shares = np.zeros((len(rows), len(self.skills)))
        for query, near in enumerate(rows.tolist()):
            for place, row in enumerate(near):
                if row >= 0:
                    of_row = self.labels[row]
                    for skill in of_row:
                        shares[query, skill] += weights[query, place] / len(of_row)
        return shares

    def boosted(self, fits: Floats) -> Floats:
        """*fits* (n, E) with those of the most associated experts times ``boost``."""
        if self.options.boost == 1.0:
            return fits
        order = np.argsort(-fits, axis=1, kind="stable")[:, :_NUM_BOOSTED]
        best = np.take_along_axis(fits, order, axis=1)
        raised = fits.copy()
        np.put_along_axis(raised, order, np.where(best > 0, best * self.options.boost, best), axis=1)
        return raised

    def predict(self, features: Features) -> Floats:
        shares = self.shares(*self.index.search(features.vectors, self.options.k))
        scores = self.link(self.boosted(shares @ self.associations), logit(self.means))
        return np.where(np.array(self.measured), scores, self.prior)

    def explain(self, features: Features, row: int) -> Mapping[str, Any]:
        shares = self.shares(*self.index.search(features.vectors[row : row + 1], self.options.k))[0]
        fits = self.boosted((shares @ self.associations)[None])[0]
        most = [int(place) for place in np.argsort(-shares, kind="stable")[:_MAX_EXPLAINED] if shares[place] > 0]
        return {
            "skills": [{"skill": self.skills[place], "share": round(float(shares[place]), 4)} for place in most],
            "association": {expert_id: round(float(fit), 4) for expert_id, fit in zip(self.expert_ids, fits, strict=True)},
            "by_skill": {
                self.skills[place]: {
                    expert_id: round(float(value), 4) for expert_id, value in zip(self.expert_ids, self.associations[place], strict=True)
                }
                for place in most
            },
            "means": {expert_id: round(float(mean), 4) for expert_id, mean in zip(self.expert_ids, self.means, strict=True)},
        }

    def with_expert(self, expert_id: str, features: Features, table: OutcomeTable) -> NpmiModel:  # noqa: ARG002 - every model's signature
        """Questions of skills that are not known here count for the expert's mean alone."""
        scores = score_matrix(table)[:, column_of(table.expert_ids, expert_id)]
        number = {skill: place for place, skill in enumerate(self.skills)}
        associations, mean = _column(scores, _pairs(_labels(table), number), len(number), self.prior)
        kept = [other for other, name in enumerate(self.expert_ids) if name != expert_id]
        return replace(
            self,
            expert_ids=(*(self.expert_ids[n] for n in kept), expert_id),
            associations=np.column_stack([self.associations[:, kept], associations]),
            means=np.append(self.means[kept], mean),
            measured=(*(self.measured[n] for n in kept), *was_measured(scores[:, None])),
        )

    def without_expert(self, expert_id: str) -> NpmiModel:
        kept = others_than(self.expert_ids, expert_id)
        return replace(
            self,
            expert_ids=tuple(self.expert_ids[n] for n in kept),
            associations=self.associations[:, kept],
            means=self.means[kept],
            measured=tuple(self.measured[n] for n in kept),
        )


def _labels(table: OutcomeTable) -> list[tuple[str, ...]]:
    """The skills of each question; where it names none, its category."""
    skills: Sequence[tuple[str, ...]] = table.skills or ((),) * len(table)
    categories: Sequence[str | None] = table.categories or (None,) * len(table)
    return [own or ((category,) if category else ()) for own, category in zip(skills, categories, strict=True)]


def _pairs(labels: Sequence[tuple[str, ...]], number: Mapping[str, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every (question, skill) of *labels* that is numbered, as two columns."""
    found = [(row, number[skill]) for row, of_question in enumerate(labels) for skill in of_question if skill in number]
    pairs = np.array(found, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _column(
    scores: Floats, pairs: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], num_skills: int, prior: float
) -> tuple[Floats, float]:
    """One expert's associations (S,), from its *scores* (N,), and its mean."""
    measured = ~np.isnan(scores)
    mean = shrunk_mean(scores, prior)
    rows, skills = (part[measured[pairs[0]]] for part in pairs)
    asked = np.bincount(skills, minlength=num_skills)
    of_skill = np.bincount(skills, weights=scores[rows].astype(np.float64), minlength=num_skills)
    # Shrunk to the mean, so that a skill with an answer or two is associated with nobody.
    rate = np.clip((of_skill + _PRIOR_ANSWERS * mean) / (asked + _PRIOR_ANSWERS), 1e-9, 1.0)
    joint = np.clip(rate * asked / max(1, int(measured.sum())), 1e-9, 1 - 1e-9)
    associations: Floats = np.where(asked > 0, np.clip(np.log(rate / max(mean, 1e-9)) / -np.log(joint), -1.0, 1.0), 0.0)
    return associations, mean
