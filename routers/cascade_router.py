"""The cascade: the cheapest expert that is good enough first, a dearer one where its answer is not sure.

After Mowst (arXiv 2311.05185: the weak expert's confidence decides whether the strong one runs), the fast path of HDFlow
(arXiv 2409.17433) and Duo-LLM (arXiv 2410.10846: one large step where it is needed beats many). This router gives the order and the
rule; the pipeline asks and judges (``orchestrator/cascade``).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from domain.cascade import CONFIDENCES, CascadeRule
from domain.errors import InvalidRequest, NoEligibleExpert
from domain.experts import Capability, ExpertCard
from domain.nearest import did_you_mean
from domain.quoting import quoted
from domain.registry import RegistrySnapshot
from domain.routing import PickRule, RoutingDecision, RoutingQuery, ScoredExpert
from routers import pick
from routers.catalogue import Router
from routers.options import check_known

MAX_SAMPLES = 8
"""Samples that are compared at most: each is a call."""


@dataclass(frozen=True, slots=True)
class CascadeOptions:
    """What a strategy may say in ``router_options``."""

    base: str = "skills"
    """The router whose scores say who is good enough."""
    base_options: Mapping[str, Any] = field(default_factory=dict)
    """Its own options."""
    experts: tuple[str, ...] | None = None
    """Whom to ask, in this order, instead of by the base's scores and prices."""
    min_share: float = 0.5
    """Part of the best score that an expert needs to be asked at all, in (0, 1]."""
    confidence: str = "agreement"
    """``agreement`` (of samples), ``logprob`` (mean token log-probability) or ``judge`` (an expert's verdict)."""
    threshold: float = 0.5
    """Confidence in [0, 1] from which an answer is taken; ``consilium strategies calibrate`` finds it."""
    samples: int = 3
    """Answers that are compared; for ``agreement``."""
    judge_expert: str | None = None
    """Who judges; needed by ``judge``."""

    @property
    def rule(self) -> CascadeRule:
        return CascadeRule(self.confidence, self.threshold, self.samples, self.judge_expert if self.confidence == "judge" else None)


def parse_cascade_options(values: Mapping[str, Any], bases: Mapping[str, Router]) -> CascadeOptions:
    """*values* over the defaults. Raises ``InvalidRequest`` naming the field and what it must be."""
    known = {known.name: known for known in dataclasses.fields(CascadeOptions)}
    check_known(values, known, router="cascade")
    for name, value in values.items():
        problem = _problem(name, value, bases)
        if problem:
            raise _invalid(name, problem)
    if isinstance(values.get("experts"), list | tuple):
        values = {**values, "experts": tuple(values["experts"])}
    options = CascadeOptions(**values)
    if options.confidence == "judge" and not options.judge_expert:
        raise _invalid("judge_expert", "must name a registered expert when the confidence is 'judge'")
    bases[options.base].check_options(options.base_options)
    return options


class CascadeRouter:
    """Orders the experts that the *base* router finds good enough; calls nobody."""

    name = "cascade"

    def __init__(self, bases: Mapping[str, Router]) -> None:
        """*bases*: the routers that ``base`` may name."""
        self._bases = bases

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ``InvalidRequest`` for options of a strategy that every request would refuse."""
        parse_cascade_options(options, self._bases)

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:
        """Raises as the base router does, ``NoEligibleExpert`` when none of the experts named by the strategy may be asked."""
        options = parse_cascade_options(query.options, self._bases)
        pick.check(query.pick)
        _check_judge(options, query, snapshot)
        if options.experts is not None:
            return self._as_named(options, query)
        base = await self._bases[options.base].route(replace(query, options=options.base_options, pick=PickRule("top_k", 1)), snapshot)
        if base.fallback or not base.others_fit:  # the scores do not speak of this query: who was selected is asked alone
            return replace(base, router=self.name, detail={**base.detail, "base": base.router})
        cards = {card.id: card for card in query.experts}
        steps, left_out, why = ladder(base.considered, cards, options, max_stages=query.pick.k)
        detail = {**base.detail, "base": base.router, **_rule_detail(options)}
        considered = tuple(
            ScoredExpert(
                scored.expert_id, scored.score, scored.expert_id in steps, f"{scored.why}; {why[scored.expert_id]}".removeprefix("; ")
            )
            for scored in base.considered
        )
        rule = options.rule if len(steps) > 1 else None
        reason = _reason(steps, left_out, options)
        return replace(base, router=self.name, selected=steps, considered=considered, reason=reason, detail=detail, cascade=rule)

    def _as_named(self, options: CascadeOptions, query: RoutingQuery) -> RoutingDecision:
        eligible = {card.id: card for card in query.experts}
        named = options.experts or ()
        steps = tuple(dict.fromkeys(name for name in named if name in eligible))
        if not steps:
            reasons = dict.fromkeys(named, "not eligible")
            raise NoEligibleExpert(f"none of the cascade's experts is eligible for this request: {', '.join(named)}", reasons=reasons)
        steps = _shortened(_judgeable(steps, eligible, options), query.pick.k)
        left_out = tuple(name for name in dict.fromkeys(named) if name not in steps)
        ids = [*steps, *(expert_id for expert_id in eligible if expert_id not in steps)]
        considered = tuple(
            ScoredExpert(expert_id, 1.0, True, f"step {steps.index(expert_id) + 1} of the strategy's cascade")
            if expert_id in steps
            else ScoredExpert(expert_id, 0.0, False, "no step of the strategy's cascade")
            for expert_id in ids
        )
        rule = options.rule if len(steps) > 1 else None
        return RoutingDecision(
            self.name, steps, considered, _reason(steps, left_out, options), others_fit=False, detail=_rule_detail(options), cascade=rule
        )


def cost_of(card: ExpertCard, *, by_price: bool) -> float:
    """What an answer costs, to compare: US dollars per million tokens of prompt and answer, else billions of parameters. Unknown sizes
    come last."""
    if by_price:
        return card.price.prompt + card.price.completion
    return math.inf if card.parameters_b is None else card.parameters_b


def ladder(
    considered: Sequence[ScoredExpert], cards: Mapping[str, ExpertCard], options: CascadeOptions, *, max_stages: int
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]:
    """Whom to ask in which order, who would be asked too with more stages or an answer that can be judged, and for every considered
    expert why (not). Pure.

    Good enough is who has ``min_share`` of the best score. Of these the cheapest comes first, and after it whoever is expected to be
    better than all before. Prices count where any of them has one, parameters otherwise.
    """
    best = max((scored.score for scored in considered), default=0.0)
    able = [scored for scored in considered if scored.expert_id in cards and scored.score >= options.min_share * best]
    by_price = any(cost_of(cards[scored.expert_id], by_price=True) > 0 for scored in able)
    unit = "USD per million tokens" if by_price else "billion parameters"
    costs = {scored.expert_id: cost_of(cards[scored.expert_id], by_price=by_price) for scored in able}
    why = {scored.expert_id: f"below {options.min_share:g} of the best score" for scored in considered}
    steps, reached = list[str](), -1.0
    for scored in sorted(able, key=lambda scored: (costs[scored.expert_id], -scored.score)):
        if scored.score > reached:
            steps.append(scored.expert_id)
            reached = scored.score
            why[scored.expert_id] = f"{costs[scored.expert_id]:g} {unit}"
        else:
            why[scored.expert_id] = "not better than a cheaper one"
    kept = _shortened(_judgeable(tuple(steps), cards, options), max_stages)
    for expert_id in steps:
        why[expert_id] += f", step {kept.index(expert_id) + 1}" if expert_id in kept else ", left out of the cascade"
    return kept, tuple(step for step in steps if step not in kept), why


def _judgeable(steps: tuple[str, ...], cards: Mapping[str, ExpertCard], options: CascadeOptions) -> tuple[str, ...]:
    """*steps* without those whose answers could not be judged; the last needs no judgement."""
    if options.confidence != "logprob":
        return steps
    return (*(step for step in steps[:-1] if Capability.LOGPROBS in cards[step].capabilities), *steps[-1:])


def _shortened(steps: tuple[str, ...], max_stages: int) -> tuple[str, ...]:
    """At most *max_stages*: the cheapest ones and the best."""
    return steps if len(steps) <= max_stages else (*steps[: max_stages - 1], steps[-1])


def _reason(steps: Sequence[str], left_out: Sequence[str], options: CascadeOptions) -> str:
    if len(steps) == 1 and left_out:
        return f"{steps[0]} is asked alone: of this cascade {', '.join(left_out)} cannot be a step of this request."
    if len(steps) == 1 and options.experts is not None:
        return f"{steps[0]} is the only step of the strategy's cascade."
    if len(steps) == 1:
        return f"{steps[0]} is the cheapest that is good enough, and nobody is expected to be better."
    by = {
        "agreement": f"{options.samples} of its answers agree",
        "logprob": "its answer's tokens are likely",
        "judge": f"{options.judge_expert} judges its answer right",
    }[options.confidence]
    return f"{steps[0]} is asked first; where its confidence ({by}) is below {options.threshold:g}, then {', then '.join(steps[1:])}."


def _rule_detail(options: CascadeOptions) -> dict[str, Any]:
    return {"confidence": options.confidence, "threshold": options.threshold}


def _check_judge(options: CascadeOptions, query: RoutingQuery, snapshot: RegistrySnapshot) -> None:
    if options.confidence != "judge" or options.judge_expert is None:
        return
    card = snapshot.experts.get(options.judge_expert)
    if card is None:
        hint = did_you_mean(options.judge_expert, sorted(snapshot.experts))
        raise _invalid("judge_expert", f"names {quoted(options.judge_expert)}, which is not registered; {hint}")
    if why := query.barred(card):
        raise _invalid("judge_expert", f"names {quoted(options.judge_expert)}, which cannot be asked: {why}")


def _problem(name: str, value: Any, bases: Mapping[str, Router]) -> str | None:
    """What is wrong with one option; None when nothing is."""
    match name:
        case "base":
            wrong = not isinstance(value, str) or value not in bases
            return (
                f"is {quoted(value)}, it must be a router; {did_you_mean(str(value), sorted(bases), always_list=True)}" if wrong else None
            )
        case "base_options":
            return None if isinstance(value, Mapping) else f"is {quoted(value)}, it must be an object"
        case "experts":
            listed = isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value)
            return None if listed or value is None else f"is {quoted(value)}, it must be a list of expert ids, cheapest first"
        case "confidence":
            hint = did_you_mean(str(value), CONFIDENCES, always_list=True)
            return None if value in CONFIDENCES else f"is {quoted(value)}; {hint}"
        case "judge_expert":
            return None if value is None or isinstance(value, str) else f"is {quoted(value)}, it must be an expert's id"
        case "samples":
            whole = isinstance(value, int) and not isinstance(value, bool) and 2 <= value <= MAX_SAMPLES
            return None if whole else f"is {quoted(value)}, it must be a whole number from 2 to {MAX_SAMPLES}"
        case _:
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1
            if not number or (name == "min_share" and value == 0):
                return f"is {quoted(value)}, it must be a number {'above 0 and at most 1' if name == 'min_share' else 'from 0 to 1'}"
            return None


def _invalid(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"router option {name!r} {problem}", param=f"router_options.{name}")
