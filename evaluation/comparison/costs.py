"""What answers cost, as far as an outcome table and its experts tell. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from domain.outcomes import OutcomeTable
from evaluation.comparison.arms import Floats
from evaluation.outcomes.files import ExpertCost

PER_ANSWER = "USD per answer"
PER_MILLION = "USD per million tokens"
PARAMETERS = "billion parameters"


@dataclass(frozen=True, slots=True)
class Costs:
    """The unit that all experts can be compared in: the first that is known of everybody."""

    unit: str
    experts: Mapping[str, ExpertCost]

    @classmethod
    def of(cls, table: OutcomeTable, experts: Mapping[str, ExpertCost]) -> Costs:
        """1. measured or computed US dollars of each answer, 2. the declared price, 3. the size; "" when nothing is known of all."""
        declared = [experts.get(expert) for expert in table.expert_ids]
        priced = all(cost is not None and cost.usd_per_million_tokens is not None for cost in declared)
        if table.usd is not None or (table.tokens is not None and priced):
            return cls(PER_ANSWER, experts)
        if priced:
            return cls(PER_MILLION, experts)
        sized = all(cost is not None and cost.parameters_b is not None for cost in declared)
        return cls(PARAMETERS if sized else "", experts)

    def matrix(self, table: OutcomeTable) -> Floats | None:
        """(N, E) cost of each answer; None when costs are not known."""
        if not self.unit:
            return None
        if self.unit == PER_ANSWER:
            return self._per_answer(table)
        return np.broadcast_to(self._declared(table.expert_ids), (len(table), len(table.expert_ids))).copy()

    def _per_answer(self, table: OutcomeTable) -> Floats:
        usd = np.full((len(table), len(table.expert_ids)), np.nan) if table.usd is None else _matrix(table, "usd")
        if table.tokens is not None:
            price = np.array([self._price(expert) for expert in table.expert_ids])
            usd = np.where(np.isnan(usd), _matrix(table, "tokens") * price / 1e6, usd)
        return usd

    def prices(self, train: OutcomeTable) -> Floats | None:
        """(E) the price that routing weighs, known before anybody answers: as declared, else the mean cost on *train*.

        A price that is not known counts as the highest.
        """
        if not self.unit:
            return None
        prices = np.array([self._price(expert) for expert in train.expert_ids])
        if self.unit != PER_ANSWER:
            prices = self._declared(train.expert_ids)
        elif np.isnan(prices).any():
            matrix = self._per_answer(train)
            known = ~np.isnan(matrix)
            with np.errstate(invalid="ignore"):
                prices = np.where(known, matrix, 0.0).sum(axis=0) / known.sum(axis=0)
        highest = np.nanmax(prices) if np.isfinite(prices).any() else 0.0
        filled: Floats = np.where(np.isnan(prices), highest, prices)
        return filled

    def _price(self, expert: str) -> float:
        cost = self.experts.get(expert)
        return float("nan") if cost is None or cost.usd_per_million_tokens is None else cost.usd_per_million_tokens

    def _declared(self, expert_ids: tuple[str, ...]) -> Floats:
        if self.unit == PER_MILLION:
            return np.array([self._price(expert) for expert in expert_ids])
        return np.array([self.experts[expert].parameters_b or 0.0 for expert in expert_ids], np.float64)


def _matrix(table: OutcomeTable, name: str) -> Floats:
    return np.array(getattr(table, name), np.float64).reshape(len(table), len(table.expert_ids))
