"""What every learned router has to beat: chance, a fixed expert, the best one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from domain.outcomes import OutcomeTable
from routers.learned.base import Features, Floats, checked, column_of, others_than, pool_mean, score_matrix, shrunk_mean
from routers.learned.options import ExpertId, option, parse

_BEHIND = 1e-4
"""How far the others are kept behind a fixed expert."""


@dataclass(frozen=True, slots=True)
class NoOptions:
    """A router that has none."""


@dataclass(frozen=True, slots=True)
class FixedOptions:
    expert: str | None = option(ExpertId())
    """Who always answers; None: the one with the best mean, which is the baseline "best single"."""


class RandomBaseline:
    """Scores by lot, the same for the same question and seed."""

    name = "random"

    @classmethod
    def with_options(cls, values: Mapping[str, Any]) -> RandomBaseline:
        """Raises ``InvalidRequest`` for any option."""
        parse(NoOptions, values, router=cls.name)
        return cls()

    def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> RandomModel:
        checked(features, table, router=self.name)
        return RandomModel(table.expert_ids, seed)


@dataclass(frozen=True)
class RandomModel:
    """A lot per question and expert."""

    expert_ids: tuple[str, ...]
    seed: int

    def predict(self, features: Features) -> Floats:
        lots = [[_lot(f"{self.seed}\0{expert_id}\0{text}") for expert_id in self.expert_ids] for text in features.texts]
        return np.array(lots).reshape(len(features), len(self.expert_ids))

    def explain(self, features: Features, row: int) -> Mapping[str, Any]:  # noqa: ARG002 - every model's signature
        return {"drawn_with_seed": self.seed}

    def with_expert(self, expert_id: str, features: Features, table: OutcomeTable) -> RandomModel:  # noqa: ARG002 - every model's signature
        column_of(table.expert_ids, expert_id)
        return replace(self, expert_ids=(*(name for name in self.expert_ids if name != expert_id), expert_id))

    def without_expert(self, expert_id: str) -> RandomModel:
        return replace(self, expert_ids=tuple(self.expert_ids[n] for n in others_than(self.expert_ids, expert_id)))


class FixedBaseline:
    """Always the same expert, by name or by mean; the others follow by their means."""

    name = "fixed"

    def __init__(self, options: FixedOptions | None = None) -> None:
        self._options = options or FixedOptions()

    @classmethod
    def with_options(cls, values: Mapping[str, Any]) -> FixedBaseline:
        """Raises ``InvalidRequest`` for options that it does not take."""
        return cls(parse(FixedOptions, values, router=cls.name))

    def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> FixedModel:  # noqa: ARG002 - nothing is drawn
        """Raises ``InvalidRequest`` when the table lacks the expert."""
        scores = checked(features, table, router=self.name)
        if self._options.expert is not None:
            column_of(table.expert_ids, self._options.expert)
        prior = pool_mean(scores)
        means = tuple(shrunk_mean(scores[:, column], prior) for column in range(scores.shape[1]))
        return FixedModel(table.expert_ids, means, self._options.expert, prior)


@dataclass(frozen=True)
class FixedModel:
    """Every expert's mean, and who comes first all the same."""

    expert_ids: tuple[str, ...]
    means: tuple[float, ...]
    expert: str | None
    prior: float

    def _scores(self) -> Floats:
        scores = np.array(self.means)
        if self.expert in self.expert_ids:
            column = self.expert_ids.index(self.expert)
            first = max(scores[column], _BEHIND)
            scores = np.minimum(scores, first - _BEHIND)
            scores[column] = first
        return scores

    def predict(self, features: Features) -> Floats:
        return np.tile(self._scores(), (len(features), 1))

    def explain(self, features: Features, row: int) -> Mapping[str, Any]:  # noqa: ARG002 - every model's signature
        means = {expert_id: round(mean, 4) for expert_id, mean in zip(self.expert_ids, self.means, strict=True)}
        return {"expert": self.expert_ids[int(self._scores().argmax())], "by": "name" if self.expert else "mean", "means": means}

    def with_expert(self, expert_id: str, features: Features, table: OutcomeTable) -> FixedModel:  # noqa: ARG002 - every model's signature
        scores = score_matrix(table)[:, column_of(table.expert_ids, expert_id)]
        kept = [n for n, name in enumerate(self.expert_ids) if name != expert_id]
        return replace(
            self,
            expert_ids=(*(self.expert_ids[n] for n in kept), expert_id),
            means=(*(self.means[n] for n in kept), shrunk_mean(scores, self.prior)),
        )

    def without_expert(self, expert_id: str) -> FixedModel:
        kept = others_than(self.expert_ids, expert_id)
        return replace(self, expert_ids=tuple(self.expert_ids[n] for n in kept), means=tuple(self.means[n] for n in kept))


def _lot(text: str) -> float:
    """A number in [0, 1) that is the same for the same text in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) / 2**56
