"""Whether all the experts that a router has selected are worth asking: not where the best is known to be enough, nor where there is no
room for them. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision
from domain.skills import SkillProfile
from orchestrator.aggregation.readers import MIN_MEASURED, Measured, measured_at_skills
from orchestrator.planner import narrowed

Loads = Callable[[str], float]
"""Expert id to calls that run and wait, against what the expert takes at once: 1 is full, 2 is full with as many waiting."""


def without_overcalling(decision: RoutingDecision, snapshot: RegistrySnapshot, accuracy: float) -> RoutingDecision:
    """*decision* with its best-scored expert alone, where that one was measured to be right often enough: in a share of *accuracy* of the
    questions of every skill of the query.

    After SMART (Qian et al., arXiv 2502.11435): a tool is called only for what the model does not know itself. What an expert knows is what
    was measured of it, not what it says of itself.
    """
    if len(set(decision.selected)) < 2 or decision.fallback:
        return decision
    best = decision.selected[0]
    found = _known_at_all(decision, snapshot.profiles.get(best))
    if found is None or found.accuracy < accuracy:
        return decision
    said = (
        f"{best} is right in {found.accuracy:.0%} of such questions ({found.num_answered} measured), so it is asked alone "
        f"and {len(decision.selected) - 1} call{'s are' if len(decision.selected) > 2 else ' is'} saved"
    )
    return narrowed(
        decision,
        (0,),
        said,
        detail={"enough_alone": {"asked": 1, "of": len(decision.selected), "accuracy": round(found.accuracy, 4), "wanted": accuracy}},
    )


def without_the_overloaded(decision: RoutingDecision, load_of: Loads, shed_from: float) -> RoutingDecision:
    """*decision* with fewer experts the busier they are: the last is left out at a load of *shed_from*, those before it at more, up to
    twice as much; the best never. A panel under pressure shrinks step by step, and only then are requests refused.

    After SMoE-Dropout (Chen et al., arXiv 2303.01610), where k is what is tuned at run time.
    """
    loads = [load_of(expert_id) for expert_id in decision.selected]
    kept = kept_under(loads, shed_from)
    if len(kept) == len(loads):
        return decision
    left_out = [position for position in range(len(loads)) if position not in kept]
    busy = ", ".join(dict.fromkeys(f"{decision.selected[position]} at {loads[position]:.1f}" for position in left_out))
    asked = f"{len(kept)} of {len(loads)} candidates {'is' if len(kept) == 1 else 'are'} asked"
    said = f"under pressure (load of {busy} times the places), so {asked}"
    return narrowed(decision, kept, said, detail={"load_shed": {"asked": len(kept), "of": len(loads), "from_load": shed_from}})


def kept_under(loads: Sequence[float], shed_from: float) -> tuple[int, ...]:
    """Positions that are asked, of experts with these *loads*, best first. With three: the third below *shed_from*, the second below one
    and a half times that, the first always."""
    last = len(loads) - 1
    return tuple(rank for rank, load in enumerate(loads) if rank == 0 or load < shed_from * (1 + (last - rank) / last))


def _known_at_all(decision: RoutingDecision, profile: SkillProfile | None) -> Measured | None:
    """What was measured of an expert at the query's skills; None where it was measured too little at one of them."""
    if profile is None or not decision.skills or not all(match.skill in profile.by_skill for match in decision.skills):
        return None
    found = measured_at_skills(profile, decision.skills)
    return found if found is not None and found.num_answered >= MIN_MEASURED else None
