"""The best-scored candidate as it is."""

from __future__ import annotations

from collections.abc import Sequence

from domain.plan import Candidate
from domain.strategy import AggregatorName
from orchestrator.aggregation.base import AggregationContext, CallsNobody, Chosen
from orchestrator.aggregation.material import fitting


class First(CallsNobody):
    """Takes the first candidate in the router's order that answers what was asked. The others only stand in when it does not."""

    name: AggregatorName = "first"

    def decide(self, context: AggregationContext, candidates: Sequence[Candidate]) -> Chosen:
        return Chosen(fitting(context.request, candidates)[0], "the best-scored candidate that answered", self.name)
