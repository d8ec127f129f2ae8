"""The aggregators by name."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from domain.errors import InvalidRequest
from orchestrator.aggregation.base import Aggregator
from orchestrator.aggregation.first import First
from orchestrator.aggregation.fuse import Fuse
from orchestrator.aggregation.vote import Vote

AGGREGATORS: Mapping[str, Aggregator] = {aggregator.name: aggregator for aggregator in (First(), Vote(), Fuse())}


def aggregator_named(name: str) -> Aggregator:
    """Raises ``InvalidRequest`` that names the known ones."""
    if name not in AGGREGATORS:
        nearest = get_close_matches(name, AGGREGATORS, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise InvalidRequest(f"unknown aggregator {name!r}; known are {', '.join(AGGREGATORS)}{hint}", param="consilium.aggregator")
    return AGGREGATORS[name]
