"""The best-scored candidate as it is."""

from __future__ import annotations

from collections.abc import Sequence

from domain.experts import ExpertCard
from domain.plan import Candidate
from domain.strategy import AggregatorName
from orchestrator.aggregation.base import AggregationContext, Chosen


class First:
    """Takes the first candidate in the router's order. The others only stand in when it fails."""

    name: AggregatorName = "first"
    calls_expert = False

    def expert_for(self, context: AggregationContext) -> ExpertCard | None:  # noqa: ARG002 - the port's signature
        return None

    def decide(self, context: AggregationContext, candidates: Sequence[Candidate]) -> Chosen:  # noqa: ARG002
        return Chosen(candidates[0], "the best-scored candidate that answered", self.name)
