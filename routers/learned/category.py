"""A query's category, and the expert that serves it.

Composition of Experts (arXiv 2412.01868) routes in two steps, because which expert is best at a single prompt is too jumpy to be learned
and a category is not: vector → category, category → expert. The map is a table (``category_map``), solved exactly under a budget of
parameters or memory, and made anew when experts change, without touching the classifier. A query whose category is not clear goes to a
generalist (Samba-CoE 0.3); how clear it has to be is chosen on held-out questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from domain.errors import InvalidRequest
from domain.outcomes import OutcomeTable
from routers.learned.base import Features, Floats, checked, column_of, others_than, pool_mean, score_matrix
from routers.learned.category_classifier import KINDS, Classifier, Validated, fit, softmax, validate
from routers.learned.category_map import CategoryMap, Sizes, best_overall, solve
from routers.learned.options import ExpertId, Number, OneOf, PerExpert, option, parse

_STRENGTH = 5.0
"""Answers that the pool's mean is worth in an expert's, and an expert's mean in its score on a category."""
_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(20))
_BEHIND = 1e-4
"""How far the others are kept behind the expert of the map."""
_MAX_EXPLAINED = 5


@dataclass(frozen=True, slots=True)
class CategoryOptions:
    classifier: str | None = option(OneOf(KINDS))
    """None: the one that finds the categories best in cross-validation."""
    min_confidence: float | None = option(Number(0, 1))
    """Probability of the likeliest category below which the generalist answers; None: chosen on held-out questions."""
    generalist: str | None = option(ExpertId())
    """None: the best over everything, within the budget."""
    budget_b: float | None = option(Number(0, above=True))
    """Billions of parameters that all kept experts may have together."""
    budget_mb: float | None = option(Number(0, above=True))
    """MB that all kept experts may take together; instead of ``budget_b``."""
    parameters_b: Mapping[str, float] = option(PerExpert(Number(0)), {})
    """Expert id to billions of parameters, as on the cards."""
    memory_mb: Mapping[str, float] = option(PerExpert(Number(0)), {})
    """Expert id to MB, as on the cards."""
    servers: Mapping[str, str] = option(PerExpert(ExpertId()), {})
    """Expert id to the server that it shares with others: what is loaded once is counted once."""

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.memory_mb, "MB", self.servers) if self.budget_mb is not None else Sizes(self.parameters_b, "b", self.servers)

    @property
    def budget(self) -> float | None:
        return self.budget_b if self.budget_mb is None else self.budget_mb


class CategoryRouter:
    """Classify, then look up."""

    name = "category"

    def __init__(self, options: CategoryOptions | None = None) -> None:
        self._options = options or CategoryOptions()

    @classmethod
    def with_options(cls, values: Mapping[str, Any]) -> CategoryRouter:
        """Raises ``InvalidRequest`` for options that it does not take."""
        options = parse(CategoryOptions, values, router=cls.name)
        if options.budget_b is not None and options.budget_mb is not None:
            raise InvalidRequest("give budget_b or budget_mb, not both", param="router_options.budget_mb")
        return cls(options)

    def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> CategoryModel:
        scores = checked(features, table, router=self.name)
        labelled = np.array([row for row, category in enumerate(table.categories) if category], np.int64)
        if not len(labelled):
            raise InvalidRequest("the router 'category' needs the categories of the labelled questions, and none has any")
        categories = tuple(sorted({str(table.categories[row]) for row in labelled}))
        number = {category: place for place, category in enumerate(categories)}
        classes = np.array([number[str(table.categories[row])] for row in labelled], np.int64)
        kinds = KINDS if self._options.classifier is None else (self._options.classifier,)
        vectors = features.vectors[labelled]
        validated = validate(kinds, vectors, classes, len(categories), seed=seed)
        prior = pool_mean(scores)
        model = CategoryModel(
            expert_ids=table.expert_ids,
            categories=categories,
            classifier=fit(validated.kind, validated.parameter, vectors, classes, len(categories), seed=seed),
            temperature=validated.temperature,
            accuracy=validated.accuracy,
            kind=validated.kind,
            shares=np.bincount(classes, minlength=len(categories)) / len(classes),
            table=np.stack(
                [_column(scores[:, n], labelled, classes, len(categories), prior) for n in range(len(table.expert_ids))], axis=1
            ),
            prior=prior,
            min_confidence=self._options.min_confidence or 0.0,
            options=self._options,
        )
        if self._options.min_confidence is None:
            model = replace(model, min_confidence=_threshold(model, validated, scores[labelled]))
        below = validated.probabilities.max(axis=1) < model.min_confidence
        return replace(model, fallback_share=float(below.mean())).ready()

    def reconfigured(self, model: CategoryModel) -> CategoryModel:
        """*model* with this router's options: the experts' sizes and servers may be others now. Raises ``InvalidRequest`` when the budget
        allows no map."""
        return model.with_options(self._options)


@dataclass(frozen=True)
class CategoryModel:
    """The classifier, the scores per category, and the map that they make."""

    expert_ids: tuple[str, ...]
    categories: tuple[str, ...]
    classifier: Classifier
    temperature: float
    accuracy: float
    """Of the classifier, on held-out questions."""
    kind: str
    shares: Floats
    """(C,) of the labelled questions."""
    table: Floats
    """(C + 1, E) expected scores per category, and over everything in the last row."""
    prior: float
    min_confidence: float
    options: CategoryOptions
    fallback_share: float = field(default=0.0)
    """Of held-out questions: how many were less clear than ``min_confidence``."""

    @cached_property
    def map(self) -> CategoryMap:
        """Who is kept, and who serves what. Raises ``InvalidRequest`` when the budget allows none."""
        sizes, budget = self.options.sizes, self.options.budget
        generalist = self.options.generalist
        if generalist is None:
            generalist = best_overall(self.expert_ids, self.table[-1], sizes, budget)
        else:
            column_of(self.expert_ids, generalist)
        return solve(self.categories, self.expert_ids, self.table[:-1], self.shares, generalist=generalist, sizes=sizes, budget=budget)

    def probabilities(self, vectors: Floats) -> Floats:
        """(N, C), calibrated."""
        return softmax(self.classifier.logits(vectors) / self.temperature)

    @cached_property
    def _answers(self) -> Floats:
        """(C + 1, E) what is predicted for a query of each category, and for an unclear one: the chosen expert first, and with 0 those
        that the budget has no place for."""
        kept = np.array([self.map.budget is None or name in self.map.kept for name in self.expert_ids])
        place = {name: column for column, name in enumerate(self.expert_ids)}
        chosen = [place[self.map.expert_of[category]] for category in self.categories] + [place[self.map.generalist]]
        answers = np.where(kept, self.table, 0.0)
        for row, column in enumerate(chosen):
            first = max(float(answers[row, column]), _BEHIND)
            answers[row] = np.minimum(answers[row], first - _BEHIND)
            answers[row, column] = first
        return answers

    def predict(self, features: Features) -> Floats:
        probabilities = self.probabilities(features.vectors)
        unclear = probabilities.max(axis=1) < self.min_confidence
        return self._answers[np.where(unclear, len(self.categories), probabilities.argmax(axis=1))]

    def category_of(self, features: Features, row: int) -> str:
        return self.categories[int(self.probabilities(features.vectors[row : row + 1])[0].argmax())]

    def explain(self, features: Features, row: int) -> Mapping[str, Any]:
        probabilities = self.probabilities(features.vectors[row : row + 1])[0]
        order = np.argsort(-probabilities, kind="stable")
        category, confidence = self.categories[order[0]], float(probabilities[order[0]])
        unclear = confidence < self.min_confidence
        return {
            "category": category,
            "confidence": round(confidence, 4),
            "min_confidence": self.min_confidence,
            "fallback": unclear,
            "expert": self.map.generalist if unclear else self.map.expert_of[category],
            "generalist": self.map.generalist,
            "categories": {self.categories[place]: round(float(probabilities[place]), 4) for place in order[:_MAX_EXPLAINED]},
            "kept": list(self.map.kept),
            "classifier": self.kind,
        }

    def with_expert(self, expert_id: str, features: Features, table: OutcomeTable) -> CategoryModel:
        """The expert's row of the table, and the map anew; the classifier stays. Questions without a known category get the likeliest."""
        scores = score_matrix(table)[:, column_of(table.expert_ids, expert_id)]
        number = {category: place for place, category in enumerate(self.categories)}
        given = table.categories or (None,) * len(table)
        classes = np.array([number.get(category or "", -1) for category in given], np.int64)
        unknown = np.flatnonzero(classes < 0)
        if len(unknown):
            classes[unknown] = self.probabilities(features.vectors[unknown]).argmax(axis=1)
        column = _column(scores, np.arange(len(table)), classes, len(self.categories), self.prior)
        kept = [other for other, name in enumerate(self.expert_ids) if name != expert_id]
        return replace(
            self,
            expert_ids=(*(self.expert_ids[n] for n in kept), expert_id),
            table=np.column_stack([self.table[:, kept], column]),
        ).ready()

    def without_expert(self, expert_id: str) -> CategoryModel:
        kept = others_than(self.expert_ids, expert_id)
        return replace(self, expert_ids=tuple(self.expert_ids[n] for n in kept), table=self.table[:, kept]).ready()

    def with_options(self, options: CategoryOptions) -> CategoryModel:
        """The same scores and classifier under another budget, generalist or sizes: the map is made anew, nothing is fitted."""
        return replace(self, options=options).ready()

    def ready(self) -> CategoryModel:
        """This model, its map made: here and not when the first query comes. Raises ``InvalidRequest`` when the budget allows none."""
        _ = self._answers
        return self


def _column(scores: Floats, rows: npt.NDArray[np.int64], classes: npt.NDArray[np.int64], num_classes: int, prior: float) -> Floats:
    """(C + 1,) one expert's scores per category, shrunk to its mean, and its mean, shrunk to *prior*. *rows* have the *classes*."""
    everywhere = scores[~np.isnan(scores)].astype(np.float64)
    mean = (everywhere.sum() + _STRENGTH * prior) / (len(everywhere) + _STRENGTH)
    own = scores[rows]
    measured = ~np.isnan(own)
    counts = np.bincount(classes[measured], minlength=num_classes)
    sums = np.bincount(classes[measured], weights=own[measured].astype(np.float64), minlength=num_classes)
    return np.append((sums + _STRENGTH * mean) / (counts + _STRENGTH), mean)


def _threshold(model: CategoryModel, validated: Validated, scores: Floats) -> float:
    """The confidence below which the generalist scores better on held-out questions than the experts of their likeliest categories."""
    place = {name: column for column, name in enumerate(model.expert_ids)}
    truth = scores[validated.rows]
    chosen = np.array([place[model.map.expert_of[category]] for category in model.categories])[validated.probabilities.argmax(axis=1)]
    everyone = np.arange(len(truth))
    mapped, general = truth[everyone, chosen], truth[:, place[model.map.generalist]]
    confidence = validated.probabilities.max(axis=1)
    both = ~np.isnan(mapped) & ~np.isnan(general)
    if not both.any():
        return 0.0
    gains = [float(np.where(confidence < threshold, general, mapped)[both].mean()) for threshold in _THRESHOLDS]
    return _THRESHOLDS[int(np.argmax(np.round(gains, 9)))]
