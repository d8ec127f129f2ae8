"""The answer that the most weight stands behind: weights of experts, not their number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from domain.plan import Candidate
from domain.strategy import AggregatorName
from orchestrator.aggregation.base import AggregationContext, CallsNobody, Chosen
from orchestrator.aggregation.readers import measured_at
from orchestrator.aggregation.vote import ballots
from orchestrator.options import Option, Options, read

POSTERIOR = "posterior"
"""Key of ``RoutingDecision.detail`` for the posterior over experts."""
_LEAST = 1e-6
"""Weight of an expert that nothing speaks for: its vote breaks ties."""
_CERTAIN = 0.99
"""Accuracies above it weigh no more: nobody was measured often enough to tell them apart."""


class WeightedVote(CallsNobody):
    """Normalised answers, each with the weight of those who gave it.

    ``score``: what the router gave them. ``posterior``: p(expert | query), a running mean of the strategy's past posteriors times the
    router's score (Branch-Train-Merge, arXiv 2208.03306). ``measured``: the log-odds of their measured accuracy at the query's skills, as
    independent votes add up (Nitzan and Paroush 1982); the router's score stands in for who was not measured.

    Of equal weights the answer of more experts wins, then the one that was routed first. An expert that was drawn twice has two votes.
    """

    name: AggregatorName = "weighted_vote"
    options: Options = {"weights": Option("score", choices=("score", "posterior", "measured"))}  # noqa: RUF012 - never changed

    def decide(self, context: AggregationContext, candidates: Sequence[Candidate]) -> Chosen:
        return weighed(context, candidates, read(context.options, self.options, "weights"))


def weighed(context: AggregationContext, candidates: Sequence[Candidate], weights: str) -> Chosen:
    """Who is chosen by *weights*."""
    known = _WEIGHTS[weights](context)
    voters, silent = ballots(context.request, candidates)
    behind = {answer: sum(max(_LEAST, known.get(one.expert_id, 0.0)) for one in given) for answer, given in voters.items()}
    chosen = max(voters, key=lambda answer: (behind[answer], len(voters[answer])))  # max() keeps the earliest of equals
    names = ", ".join(one.expert_id for one in voters[chosen])
    why = f"{behind[chosen]:.2f} of {sum(behind.values()):.2f} by {weights} agree ({names})"
    return Chosen(voters[chosen][0], f"{why}, {len(silent)} answered nothing" if silent else why, "weighted_vote")


def posterior(prior: Mapping[str, float], scores: Mapping[str, float]) -> dict[str, float]:
    """p(expert | query) ∝ prior × score, over *scores*; who is not in *prior* has the mean of it. Sums to 1, unless nobody has a score."""
    if not scores:
        return {}
    unknown = sum(prior.values()) / len(prior) if prior else 1.0
    raw = {expert_id: max(0.0, score) * prior.get(expert_id, unknown) for expert_id, score in scores.items()}
    total = sum(raw.values())
    return {expert_id: value / total for expert_id, value in raw.items()} if total else dict.fromkeys(scores, 1 / len(scores))


def _scores(context: AggregationContext) -> dict[str, float]:
    return {considered.expert_id: considered.score for considered in context.decision.considered}


def _posteriors(context: AggregationContext) -> Mapping[str, float]:
    known = context.decision.detail.get(POSTERIOR)
    return known if isinstance(known, Mapping) else posterior({}, _scores(context))


def _log_odds(context: AggregationContext) -> dict[str, float]:
    scores = _scores(context)
    accuracies = {
        expert_id: found.accuracy if (found := measured_at(context, expert_id)) else scores.get(expert_id, 0.0)
        for expert_id in context.decision.selected
    }
    return {expert_id: _odds(accuracy) for expert_id, accuracy in accuracies.items()}


def _odds(accuracy: float) -> float:
    accuracy = min(_CERTAIN, max(1 - _CERTAIN, accuracy))
    return math.log(accuracy / (1 - accuracy))


_WEIGHTS = {"score": _scores, "posterior": _posteriors, "measured": _log_odds}
