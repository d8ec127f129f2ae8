"""The answer that the most weight stands behind: weights of experts, not their number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from domain.plan import Candidate
from domain.strategy import AggregatorName
from orchestrator.aggregation.base import AggregationContext, Aggregator, CallsNobody, Chosen
from orchestrator.aggregation.option_probabilities import option_probabilities
from orchestrator.aggregation.readers import measured_at
from orchestrator.aggregation.vote import TIES, ballots, of_ties
from orchestrator.options import Option, Options, read

PROBABILITY = "probability"
POSTERIOR = "posterior"
"""Key of ``RoutingDecision.detail`` for the posterior over experts."""
_LEAST = 1e-6
"""Weight of an expert that nothing speaks for: its vote breaks ties."""
_CERTAIN = 0.99
"""Accuracies above it weigh no more: nobody was measured often enough to tell them apart."""
ALIKE = Option(1.0, 0.01, 1.0)
"""How often two experts that are both wrong say the same: 1 between two alternatives, 1 / (m - 1) where mistakes are spread over *m*, next
to nothing where there are many. Of ``measured`` only."""


class WeightedVote(CallsNobody):
    """Normalised answers, each with the weight of those who gave it.

    ``score``: what the router gave them. ``posterior``: p(expert | query), a running mean of the strategy's past posteriors times the
    router's score (Branch-Train-Merge, arXiv 2208.03306). ``measured``: the log-odds of their measured accuracy at the query's skills, as
    independent votes add up between two alternatives (Nitzan and Paroush 1982); the router's score stands in for who was not measured.
    The rarer wrong answers agree, the more agreement says: the option ``alike`` adds log(1 / alike) to each weight, which is log(m - 1) for
    *m* alternatives that are wrong equally often (Zhu, Zou, Rosset and Hastie 2009, Multi-class AdaBoost).

    ``probability``: multiple choice, the mean of what the experts hold each option to be worth (``option_probabilities``); by score
    where an answer is no letter, or its expert tells no log-probabilities.

    Of equal weights the answer of more experts wins, then the one that was routed first; with ``ties: size`` first of all the one whose
    voters have more parameters. An expert that was drawn twice has two votes.
    """

    name: AggregatorName = "weighted_vote"
    options: Options = {  # noqa: RUF012 - never changed
        "weights": Option("score", choices=("score", "posterior", "measured", PROBABILITY)),
        "ties": TIES,
        "alike": ALIKE,
    }

    def decide(self, context: AggregationContext, candidates: Sequence[Candidate]) -> Chosen:
        weights = read(context.options, self.options, "weights")
        return mixed(context, candidates) if weights == PROBABILITY else weighed(context, candidates, weights)


def wants_probabilities(context: AggregationContext, aggregator: Aggregator) -> bool:
    """Whether candidates are to tell the log-probabilities of their answers."""
    return aggregator.name == WeightedVote.name and context.options.get("weights") == PROBABILITY


def mixed(context: AggregationContext, candidates: Sequence[Candidate]) -> Chosen:
    """The option that the experts together hold to be worth most, of those that one of them has named."""
    voters, silent = ballots(context.request, candidates)
    told = {answer: [option_probabilities(one) for one in given] for answer, given in voters.items()}
    unread = [one.expert_id for answer, given in voters.items() for one, known in zip(given, told[answer], strict=True) if known is None]
    if unread:
        chosen = weighed(context, candidates, "score")
        return replace(chosen, why=f"{', '.join(dict.fromkeys(unread))} told no probabilities of options, so {chosen.why}")
    known = [probabilities for given in told.values() for probabilities in given if probabilities is not None]
    mean = {answer: math.fsum(probabilities.get(answer, 0.0) for probabilities in known) / len(known) for answer in voters}
    best = max(mean, key=lambda answer: mean[answer])  # max() keeps the earliest of equals
    options = ", ".join(f"{answer.upper()} {share:.2f}" for answer, share in mean.items())
    names = ", ".join(one.expert_id for one in voters[best])
    why = f"{options} by the mean probability of {len(known)} experts ({names} said {best.upper()})"
    return Chosen(voters[best][0], f"{why}, {len(silent)} answered nothing" if silent else why, "weighted_vote")


def weighed(context: AggregationContext, candidates: Sequence[Candidate], weights: str) -> Chosen:
    """Who is chosen by *weights*."""
    known = _WEIGHTS[weights](context)
    voters, silent = ballots(context.request, candidates)
    behind = {answer: sum(max(_LEAST, known.get(one.expert_id, 0.0)) for one in given) for answer, given in voters.items()}
    most = max(behind.values())
    tied, by_size = of_ties(context, voters, [answer for answer in voters if math.isclose(behind[answer], most)])
    chosen = max(tied, key=lambda answer: len(voters[answer]))  # max() keeps the earliest of equals
    names = ", ".join(one.expert_id for one in voters[chosen])
    why = f"{behind[chosen]:.2f} of {sum(behind.values()):.2f} by {weights} agree ({names}){by_size}"
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
    above_chance = -math.log(read(context.options, {"alike": ALIKE}, "alike"))
    return {expert_id: _odds(accuracy) + above_chance for expert_id, accuracy in accuracies.items()}


def _odds(accuracy: float) -> float:
    accuracy = min(_CERTAIN, max(1 - _CERTAIN, accuracy))
    return math.log(accuracy / (1 - accuracy))


_WEIGHTS = {"score": _scores, "posterior": _posteriors, "measured": _log_odds}
