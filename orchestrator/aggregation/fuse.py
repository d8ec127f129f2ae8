"""One expert reads all candidates and writes the answer; which one was measured (Symbolic-MoE, arXiv 2503.05641)."""

from __future__ import annotations

from collections.abc import Sequence

from domain.experts import ExpertCard, ExpertRole
from domain.plan import Candidate
from domain.skills import AggregatorProfile
from domain.strategy import AggregatorName
from orchestrator.aggregation.base import AggregationContext, Chosen, Synthesis
from orchestrator.aggregation.prompts import answer_text, fuse_messages
from orchestrator.aggregation.vote import Vote

_PRIOR_CORRECT, _PRIOR_WRONG = 1.0, 2.0
"""One right of three: what choosing a candidate blindly would reach. Weighs like three questions."""


def aggregator_score(profile: AggregatorProfile | None, category: str | None) -> float:
    """How well an expert aggregates in *category*, in [0, 1]: its count there, shrunk to its overall, shrunk to a third."""
    if profile is None:
        return _PRIOR_CORRECT / (_PRIOR_CORRECT + _PRIOR_WRONG)
    overall = profile.overall.accuracy(prior_correct=_PRIOR_CORRECT, prior_wrong=_PRIOR_WRONG)
    here = profile.by_category.get(category or "")
    if here is None:
        return overall
    weight = _PRIOR_CORRECT + _PRIOR_WRONG
    return here.accuracy(prior_correct=weight * overall, prior_wrong=weight * (1 - overall))


class Fuse:
    """Asked for by the request, else fixed by the strategy, else the best measured aggregator for the query's category.
    Whether the request may ask for that one is checked before it is routed; what fails since then gives way to the measured.

    Experts that were never measured as aggregators are considered only when their card gives them that role. With no
    usable aggregator at all the candidates vote.
    """

    name: AggregatorName = "fuse"
    calls_expert = True

    def expert_for(self, context: AggregationContext) -> ExpertCard | None:
        fixed = context.request.options.aggregator_expert or context.strategy.aggregator_expert
        if fixed is not None:
            card = context.snapshot.experts.get(fixed)
            if card is not None and context.usable(card):
                return card
        profiles = context.snapshot.aggregator_profiles
        able = [
            card
            for card in context.snapshot.experts.values()
            if (card.id in profiles or ExpertRole.AGGREGATOR in card.roles) and context.usable(card)
        ]
        category = context.decision.category
        return max(able, key=lambda card: (aggregator_score(profiles.get(card.id), category), card.id), default=None)

    def decide(self, context: AggregationContext, candidates: Sequence[Candidate]) -> Chosen | Synthesis:
        expert = self.expert_for(context)
        if expert is None:
            chosen = Vote().decide(context, candidates)
            return Chosen(chosen.candidate, f"no usable aggregator, so {chosen.why}", chosen.by)
        score = aggregator_score(context.snapshot.aggregator_profiles.get(expert.id), context.decision.category)
        messages = fuse_messages(context.request.messages, [answer_text(c) for c in candidates], expert.aggregation_prompt)
        return Synthesis(expert, messages, f"aggregator profile {score:.2f}")
