"""Who reads what others have said: chosen by measurement (Symbolic-MoE, arXiv 2503.05641), and only where it is worth it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domain.experts import ExpertCard
from domain.skills import AggregatorProfile, SkillMatch, SkillProfile
from orchestrator.aggregation.base import AggregationContext

_PRIOR_CORRECT, _PRIOR_WRONG = 1.0, 2.0
"""One right of three: what choosing a candidate blindly would reach. Weighs like three questions."""
MIN_MEASURED = 20
"""Questions from which a measured accuracy is held against another one."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How often an expert is right at what a query needs."""

    accuracy: float
    num_answered: int


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


def measured_at(context: AggregationContext, expert_id: str) -> Measured | None:
    """How often *expert_id* is right at the skills of the query, by their weights; None where nothing was measured at them."""
    profile = context.snapshot.profiles.get(expert_id)
    return None if profile is None else measured_at_skills(profile, context.decision.skills)


def measured_at_skills(profile: SkillProfile, skills: Sequence[SkillMatch]) -> Measured | None:
    """How often the expert of *profile* is right at *skills*, by their weights; None where nothing was measured at them."""
    known = [(match.weight, profile.by_skill[match.skill]) for match in skills if match.skill in profile.by_skill]
    known = [(weight, count) for weight, count in known if count.num_answered]
    total = sum(weight for weight, _ in known)
    if not total:
        return None
    accuracy = sum(weight * count.accuracy(prior_correct=1.0, prior_wrong=1.0) for weight, count in known) / total
    return Measured(accuracy, min(count.num_answered for _, count in known))


def reader_for(context: AggregationContext) -> tuple[ExpertCard | None, str]:
    """Who reads the candidates, and why; nobody, and why not.

    Asked for by the request, else fixed by the strategy, else the best measured aggregator for the query's category. Experts that were
    never measured as aggregators are considered only when their card gives them that role. Looked for once in a request.
    """
    if (known := context.memo.get("reader")) is None:
        known = context.memo["reader"] = _found_reader(context)
    return known


def _found_reader(context: AggregationContext) -> tuple[ExpertCard | None, str]:
    asked, named = context.request.options.aggregator_expert, context.strategy.aggregator_expert
    missed = ""
    if (fixed := asked or named) is not None:
        by = "request" if asked else "strategy"
        card = context.snapshot.experts.get(fixed)
        if card is not None and context.usable(card):
            return card, context.why_fixed or f"the {by} names {card.id}"
        missed = f"{fixed}, which the {by} names, cannot be asked; "
    profiles, category = context.snapshot.aggregator_profiles, context.decision.category
    able = [card for card in context.snapshot.aggregators if context.usable(card)]
    if not able:
        return None, f"{missed}no aggregator is usable"
    best = max(able, key=lambda card: (aggregator_score(profiles.get(card.id), category), card.id))
    return best, f"{missed}{best.id} is the best aggregator of {len(able)} usable ({_told(profiles.get(best.id), category)})"


def is_named(context: AggregationContext, reader: ExpertCard) -> bool:
    """Whether somebody has asked for that reader."""
    return reader.id in {context.request.options.aggregator_expert, context.strategy.aggregator_expert}


def better_than(context: AggregationContext, reader: ExpertCard) -> str | None:
    """Why one candidate's own answer is to be preferred to what *reader* would make of all; None when it is not, or nothing is known.

    Both are measured: the candidates at the skills of the query, the reader with one right and two wrong answers before it.
    """
    profile = context.snapshot.aggregator_profiles.get(reader.id)
    if profile is None or profile.overall.num_answered < MIN_MEASURED:
        return None
    known = [(found, expert_id) for expert_id in dict.fromkeys(context.decision.selected) if (found := measured_at(context, expert_id))]
    if not known:
        return None
    best, expert_id = max(known, key=lambda one: one[0].accuracy)
    own = aggregator_score(profile, context.decision.category)
    if best.num_answered < MIN_MEASURED or best.accuracy <= own:
        return None
    return (
        f"{expert_id} is right in {best.accuracy:.0%} of such questions ({best.num_answered} measured), "
        f"{reader.id} would find the right answer in {own:.0%}"
    )


def _told(profile: AggregatorProfile | None, category: str | None) -> str:
    """What its score stands on, for people."""
    score = f"score {aggregator_score(profile, category):.2f}"
    if profile is None:
        return f"{score}, never measured"
    here = profile.by_category.get(category or "")
    count, where = (here, f" in {category}") if here is not None else (profile.overall, " overall")
    return f"{score}: {count.num_correct} of {count.num_answered} right{where}"
