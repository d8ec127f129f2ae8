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
        return _reader(context)[0]

    def decide(self, context: AggregationContext, candidates: Sequence[Candidate]) -> Chosen | Synthesis:
        expert, why = _reader(context)
        if expert is None:
            chosen = Vote().decide(context, candidates)
            return Chosen(chosen.candidate, f"{why}, so {chosen.why}", chosen.by)
        messages = fuse_messages(context.request.messages, [answer_text(c) for c in candidates], expert.aggregation_prompt)
        return Synthesis(expert, messages, why)


def _reader(context: AggregationContext) -> tuple[ExpertCard | None, str]:
    """Who reads the candidates, and why; nobody, and why not."""
    asked, named = context.request.options.aggregator_expert, context.strategy.aggregator_expert
    missed = ""
    if (fixed := asked or named) is not None:
        by = "request" if asked else "strategy"
        card = context.snapshot.experts.get(fixed)
        if card is not None and context.usable(card):
            return card, context.why_fixed or f"the {by} names {card.id}"
        missed = f"{fixed}, which the {by} names, cannot be asked; "
    profiles, category = context.snapshot.aggregator_profiles, context.decision.category
    able = [
        card
        for card in context.snapshot.experts.values()
        if (card.id in profiles or ExpertRole.AGGREGATOR in card.roles) and context.usable(card)
    ]
    if not able:
        return None, f"{missed}no aggregator is usable"
    best = max(able, key=lambda card: (aggregator_score(profiles.get(card.id), category), card.id))
    return best, f"{missed}{best.id} is the best aggregator of {len(able)} usable ({_measured(profiles.get(best.id), category)})"


def _measured(profile: AggregatorProfile | None, category: str | None) -> str:
    """What its score stands on, for people."""
    score = f"score {aggregator_score(profile, category):.2f}"
    if profile is None:
        return f"{score}, never measured"
    here = profile.by_category.get(category or "")
    count, where = (here, f" in {category}") if here is not None else (profile.overall, " overall")
    return f"{score}: {count.num_correct} of {count.num_answered} right{where}"
