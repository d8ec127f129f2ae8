"""Whom a strategy's queries have gone to so far: the prior over its experts, as a running mean of posteriors (Branch-Train-Merge)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from orchestrator.aggregation.weighted_vote import posterior

MAX_STRATEGIES = 256
"""Strategies that a prior is kept for, those asked last; another begins anew."""
_SHARE = 0.05
"""Of the mean that the newest posterior makes: what was asked sixty queries ago counts a twentieth of that."""


class Posteriors:
    """Mutable, in memory, of one process. Not for threads."""

    def __init__(self) -> None:
        self._priors: OrderedDict[str, dict[str, float]] = OrderedDict()

    def update(self, strategy_id: str, scores: Mapping[str, float]) -> dict[str, float]:
        """The posterior of a query with the router's *scores*; the strategy's prior, uniform at first, moves towards it."""
        prior = self._priors.get(strategy_id, {})
        found = posterior(prior, scores)
        kept = {expert_id: prior.get(expert_id, 1 / len(found)) for expert_id in found}
        self._priors[strategy_id] = {expert_id: (1 - _SHARE) * kept[expert_id] + _SHARE * value for expert_id, value in found.items()}
        self._priors.move_to_end(strategy_id)
        if len(self._priors) > MAX_STRATEGIES:
            self._priors.popitem(last=False)
        return found
