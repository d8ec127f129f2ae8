"""The answer that most candidates give (Wang et al. 2023, self-consistency; here over different experts)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from domain.answers import normalise_answer
from domain.experts import ExpertCard
from domain.plan import Candidate
from orchestrator.aggregation.base import AggregationContext, Chosen


class Vote:
    """Majority of normalised answers. A tie goes to the answer whose voters have the higher summed router score, then
    to the one that was routed first."""

    name = "vote"

    def expert_for(self, context: AggregationContext) -> ExpertCard | None:  # noqa: ARG002 - the port's signature
        return None

    def decide(self, context: AggregationContext, candidates: Sequence[Candidate]) -> Chosen:
        score = {considered.expert_id: considered.score for considered in context.decision.considered}
        voters: dict[str, list[Candidate]] = defaultdict(list)
        for candidate in candidates:
            voters[normalise_answer(candidate.text)].append(candidate)
        # max() keeps the earliest of equals, and dicts keep the routing order.
        answer = max(voters, key=lambda a: (len(voters[a]), sum(score.get(c.expert_id, 0.0) for c in voters[a])))
        names = ", ".join(candidate.expert_id for candidate in voters[answer])
        return Chosen(voters[answer][0], f"{len(voters[answer])} of {len(candidates)} candidates agree ({names})", self.name)
