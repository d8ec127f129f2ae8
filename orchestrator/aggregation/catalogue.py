"""The aggregators by name."""

from __future__ import annotations

from collections.abc import Mapping

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.quoting import quoted
from orchestrator.aggregation.base import Aggregator
from orchestrator.aggregation.first import First
from orchestrator.aggregation.fuse import Fuse
from orchestrator.aggregation.judge import Judge
from orchestrator.aggregation.vote import Vote
from orchestrator.aggregation.weighted_vote import WeightedVote

_ALL: tuple[Aggregator, ...] = (Fuse(), Vote(), WeightedVote(), Judge(), First())
AGGREGATORS: Mapping[str, Aggregator] = {aggregator.name: aggregator for aggregator in _ALL}
"""One for each of ``domain.strategy.AGGREGATOR_NAMES``."""


def aggregator_named(name: str) -> Aggregator:
    """Raises ``InvalidRequest`` that names the known ones."""
    if name not in AGGREGATORS:
        hint = did_you_mean(name, tuple(AGGREGATORS), always_list=True)
        raise InvalidRequest(f"unknown aggregator {quoted(name)}; {hint}", param="consilium.aggregator")
    return AGGREGATORS[name]
