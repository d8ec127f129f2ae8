"""Routing within limits of price, latency and memory: the best set of experts that fits, by another router's scores.

After MoE² (arXiv 2501.09410). Whoever is down is not among the experts that are scored, so nothing is trained anew for that: the
scores of those that are left decide, as shares of what is left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Protocol

from domain.adjustments import blended_price
from domain.errors import InvalidRequest, NoEligibleExpert
from domain.experts import ExpertCard
from domain.quoting import quoted
from domain.registry import RegistrySnapshot
from domain.routing import PickRule, RoutingDecision, RoutingQuery, ScoredExpert
from routers import pick
from routers.adjust import UNSCORED
from routers.catalogue import Router
from routers.options import check_known
from routers.subset import Choices, Room, best_subset, memory_of, price_of, quality


class ExpertCosts(Protocol):
    """What asking an expert takes now, in memory. No method waits."""

    def latency_ms(self, expert_id: str) -> float | None:
        """None when it is not known."""
        ...

    def to_load(self) -> Mapping[str, tuple[str, float]]:
        """Of experts whose server is not loaded, by id: the server, and the MB that it would take more than now."""
        ...


@dataclass(frozen=True, slots=True)
class BudgetOptions:
    """Settings of this router (``router_options``)."""

    base: str = "skills"
    """Whose scores decide."""
    base_options: Mapping[str, Any] | None = None
    max_price: float | None = None
    """US dollars per million tokens, of all that are asked together."""
    max_latency_ms: float | None = None
    """Of each that is asked, since they are asked at once; an expert of unknown latency is left out."""
    max_memory_mb: float | None = None
    """That servers may take which are not loaded yet."""

    def told(self) -> str:
        """The limits in words."""
        limits = (
            ("a price of {:g} USD per million tokens", self.max_price),
            ("{:g} ms", self.max_latency_ms),
            ("{:g} MB to load", self.max_memory_mb),
        )
        return " and ".join(text.format(value) for text, value in limits if value is not None) or "no limits"


def parse_budget_options(values: Mapping[str, Any]) -> BudgetOptions:
    """Raises ``InvalidRequest`` naming the option."""
    check_known(values, [field.name for field in fields(BudgetOptions)], router="budget")
    options = BudgetOptions(**values)
    if not isinstance(options.base, str) or options.base in (*UNSCORED, "budget"):
        raise _invalid("base", f"is {quoted(options.base)}, it must be a router that scores experts, such as 'skills'")
    if options.base_options is not None and not isinstance(options.base_options, Mapping):
        raise _invalid("base_options", "must be an object with the options of the router that scores")
    for name in ("max_price", "max_latency_ms", "max_memory_mb"):
        value = getattr(options, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf):
            raise _invalid(name, f"is {quoted(value)}, it must be a number, 0 or more")
    return options


class BudgetRouter:
    """Wraps any router that scores."""

    name = "budget"

    def __init__(self, routers: Mapping[str, Router], costs: ExpertCosts) -> None:
        """*routers*: those that it may wrap, by name."""
        self._routers, self._costs = routers, costs

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ``InvalidRequest`` for wrong limits, a base that is no router, or options that the base does not take."""
        parsed = parse_budget_options(options)
        self._base(parsed).check_options(parsed.base_options or {})

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:
        """1. the base's scores of everybody, adjusted, 2. leave out who does not fit alone, 3. the best set of at most k that fits,
        4. the pick within it.

        Raises what the base raises, and ``NoEligibleExpert`` with everybody's reason when nobody fits.
        """
        pick.check(query.pick)
        options = parse_budget_options(query.options)
        base = self._base(options)
        everybody = PickRule("top_k", len(query.experts))
        decision = await base.route(replace(query, pick=everybody, options=options.base_options or {}), snapshot)
        cards = {card.id: card for card in query.experts}
        to_load = self._costs.to_load() if options.max_memory_mb is not None else {}
        obstacles = {card.id: why for card in query.experts if (why := self._obstacle(card, options, to_load))}
        if len(obstacles) == len(cards):
            listed = "; ".join(f"{expert_id}: {why}" for expert_id, why in sorted(obstacles.items()))
            raise NoEligibleExpert(f"no expert is within {options.told()} ({listed})", reasons=obstacles)
        if decision.fallback or not decision.others_fit:  # as for the cascade: the scores do not speak of this query
            return self._settled(decision, options, obstacles)
        fitting = [expert for expert in decision.considered if expert.expert_id not in obstacles]
        choices = Choices(
            scores=[expert.score for expert in fitting],
            prices=[blended_price(cards[expert.expert_id]) for expert in fitting],
            servers=[to_load[expert.expert_id][0] if expert.expert_id in to_load else None for expert in fitting],
            memory_mb=[to_load.get(expert.expert_id, ("", 0.0))[1] for expert in fitting],
        )
        room = Room(_or_any(options.max_price), _or_any(options.max_memory_mb), query.pick.k)
        subset = best_subset(choices, room) or (_cheapest(choices),)
        places = _picked(choices, subset, room, query)
        selected = tuple(fitting[place].expert_id for place in places)
        made = decision.altered(
            router=self.name,
            selected=selected,
            considered=_considered(decision.considered, selected, obstacles),
            reason=_told(
                options, base.name, [fitting[place] for place in dict.fromkeys(places)], price_of(choices, places), decision.skills
            ),
        )
        told = {
            "limits": {name: getattr(options, name) for name in ("max_price", "max_latency_ms", "max_memory_mb")},
            "subset": _shares([fitting[place] for place in subset]),
            "expected_quality": round(quality(choices.scores[place] for place in dict.fromkeys(places)), 4),
            "price": round(price_of(choices, places), 6),
            "memory_mb": round(memory_of(choices, places), 1),
        }
        return made.detailed_by(lambda: {**told, "base": {"router": base.name, **decision.detail}})

    def _base(self, options: BudgetOptions) -> Router:
        try:
            return self._routers[options.base]
        except InvalidRequest as error:
            raise _invalid("base", f"names an {error.message}") from error

    def _obstacle(self, card: ExpertCard, options: BudgetOptions, to_load: Mapping[str, tuple[str, float]]) -> str | None:
        """Why *card* alone is over the limits."""
        price = blended_price(card)
        if options.max_price is not None and price > options.max_price:
            return f"its price of {price:g} is over {options.max_price:g}"
        if options.max_latency_ms is not None:
            latency = self._costs.latency_ms(card.id)
            if latency is None:
                return "its latency is not known: measure it with `consilium profile run`"
            if latency > options.max_latency_ms:
                return f"its latency of {latency:.0f} ms is over {options.max_latency_ms:g}"
        if options.max_memory_mb is not None and card.id in to_load and to_load[card.id][1] > options.max_memory_mb:
            return f"loading it takes {to_load[card.id][1]:.0f} MB, over {options.max_memory_mb:g}"
        return None

    def _settled(self, decision: RoutingDecision, options: BudgetOptions, obstacles: Mapping[str, str]) -> RoutingDecision:
        """Whom the base took without going by scores (its fallback, who answered the session so far), when that fits."""
        expert_id = decision.selected[0]
        if expert_id in obstacles:
            raise NoEligibleExpert(f"{decision.reason} It is not within {options.told()}: {obstacles[expert_id]}", reasons=dict(obstacles))
        return decision.altered(router=self.name, considered=_considered(decision.considered, decision.selected, obstacles))


def _picked(choices: Choices, subset: Sequence[int], room: Room, query: RoutingQuery) -> tuple[int, ...]:
    """The pick within *subset*; draws with replacement only as far as the price goes, and at least one."""
    drawn = tuple(subset[i] for i in pick.pick([choices.scores[place] for place in subset], query.pick, seed=query.seed))
    while len(drawn) > 1 and price_of(choices, drawn) > room.price:
        drawn = drawn[:-1]
    return drawn


def _considered(experts: Sequence[ScoredExpert], selected: Sequence[str], obstacles: Mapping[str, str]) -> tuple[ScoredExpert, ...]:
    """Best first, and at the end with no score those that are over a limit: nobody of them may stand in for another."""
    fitting = [
        ScoredExpert.explained_by(expert.expert_id, expert.score, expert.expert_id in selected, partial(_why, expert))
        for expert in experts
        if expert.expert_id not in obstacles
    ]
    others = [
        ScoredExpert.explained_by(expert.expert_id, 0.0, False, partial(_why, expert, f"left out: {obstacles[expert.expert_id]}; "))
        for expert in experts
        if expert.expert_id in obstacles
    ]
    return (*fitting, *others)


def _why(expert: ScoredExpert, before: str = "") -> str:
    return f"{before}{expert.why}"


def _shares(subset: Sequence[ScoredExpert]) -> dict[str, float]:
    """Their scores as parts of the whole."""
    total = sum(expert.score for expert in subset)
    return {expert.expert_id: round(expert.score / total, 4) if total else round(1 / len(subset), 4) for expert in subset}


def _cheapest(choices: Choices) -> int:
    """When nobody has a score above 0, nobody is better than another."""
    return min(range(len(choices)), key=lambda place: choices.prices[place])


def _told(options: BudgetOptions, base: str, chosen: Sequence[ScoredExpert], price: float, skills: Sequence[Any]) -> str:
    needs = f"The query needs {' and '.join(match.skill for match in skills[:2])}; within" if skills else "Within"
    names = ", ".join(expert.expert_id for expert in chosen)
    how = "is best" if len(chosen) == 1 else "are the best set"
    right = quality(expert.score for expert in chosen)
    return f"{needs} {options.told()} {names} {how} by the scores of {base!r} (one is right with {right:.2f}; price {price:g})."


def _or_any(limit: float | None) -> float:
    return math.inf if limit is None else limit


def _invalid(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"router option {name!r} {problem}", param=f"router_options.{name}")
