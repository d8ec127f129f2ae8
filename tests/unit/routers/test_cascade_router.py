"""Whom a cascade asks, in which order, and by which rule."""

from __future__ import annotations

from typing import Any

import pytest

from domain.cascade import CascadeRule
from domain.errors import InvalidRequest, NoEligibleExpert
from domain.experts import Capability, ExpertCard, Price
from domain.registry import RegistrySnapshot
from domain.routing import PickRule, ScoredExpert
from domain.strategy import Strategy
from routers.cascade_router import CascadeOptions, CascadeRouter, ladder
from routers.catalogue import RouterCatalogue
from routers.random_router import RandomRouter
from tests.fakes.routing import card, query, skills_router, snapshot_of

SIZES = {"mirror": 0.5, "atlas": 1.0, "generalist": 7.0, "calculator": 70.0}


def cards(**changes: Any) -> list[ExpertCard]:
    return [card(expert_id, parameters_b=size, **changes) for expert_id, size in SIZES.items()]


async def router(snapshot: RegistrySnapshot) -> CascadeRouter:
    return CascadeRouter(RouterCatalogue([await skills_router(snapshot), RandomRouter()]))


def scored(**scores: float) -> list[ScoredExpert]:
    return [ScoredExpert(expert_id, score, selected=False) for expert_id, score in sorted(scores.items(), key=lambda item: -item[1])]


async def test_the_cheapest_good_enough_expert_is_first_and_then_whoever_is_better() -> None:
    snapshot = snapshot_of(cards())
    decision = await (await router(snapshot)).route(query(snapshot, "What is 40 plus 2?", pick=PickRule("top_k", 3)), snapshot)

    assert decision.router == "cascade"
    assert decision.selected == ("generalist", "calculator")
    assert decision.cascade == CascadeRule()
    assert decision.skills, "the base router's findings are kept"
    assert decision.reason == ("generalist is asked first; where its confidence (3 of its answers agree) is below 0.5, then calculator.")
    why = {considered.expert_id: considered.why for considered in decision.considered}
    assert why["generalist"].endswith("7 billion parameters, step 1")
    assert why["atlas"].endswith("below 0.5 of the best score")


@pytest.mark.parametrize(
    ("options", "selected", "reason"),
    [
        ({}, "calculator", "is asked alone: of this cascade generalist cannot be a step of this request."),
        ({"confidence": "logprob"}, "calculator", "is asked alone: of this cascade generalist cannot be a step of this request."),
        ({"experts": ["atlas", "mirror"]}, "mirror", "is asked alone: of this cascade atlas cannot be a step of this request."),
        ({"experts": ["atlas"]}, "atlas", "is the only step of the strategy's cascade."),
    ],
)
async def test_who_is_left_out_of_a_cascade_of_one_step_is_told(options: dict[str, Any], selected: str, reason: str) -> None:
    snapshot = snapshot_of(cards())
    k = 3 if "confidence" in options else 1
    decision = await (await router(snapshot)).route(query(snapshot, "What is 40 plus 2?", pick=PickRule("top_k", k), **options), snapshot)

    assert (decision.selected, decision.cascade) == ((selected,), None)
    assert decision.reason == f"{selected} {reason}"


async def test_without_anybody_better_there_is_no_cascade() -> None:
    snapshot = snapshot_of(cards())
    decision = await (await router(snapshot)).route(query(snapshot, "Name the capital of Peru."), snapshot)

    assert decision.selected == ("atlas",)
    assert decision.cascade is None


def test_prices_count_where_there_are_any_and_a_dearer_expert_must_be_better() -> None:
    known = {
        "free": card("free", parameters_b=70.0),
        "cheap": card("cheap", price=Price(0.1, 0.4)),
        "dear": card("dear", price=Price(5.0, 15.0)),
        "useless": card("useless", price=Price(9.0, 9.0)),
    }
    steps, _, why = ladder(scored(free=0.5, cheap=0.7, dear=0.9, useless=0.7), known, CascadeOptions(), max_stages=8)

    assert steps == ("free", "cheap", "dear")
    assert why["useless"] == "not better than a cheaper one"
    assert why["cheap"] == "0.5 USD per million tokens, step 2"


def test_unknown_sizes_come_last_and_a_short_cascade_keeps_its_best() -> None:
    known = {name: card(name, parameters_b=size) for name, size in (("s", 1.0), ("m", 2.0), ("l", 3.0), ("x", None))}
    points = scored(s=0.5, m=0.6, l=0.7, x=0.8)

    assert ladder(points, known, CascadeOptions(), max_stages=8)[0] == ("s", "m", "l", "x")
    assert ladder(points, known, CascadeOptions(), max_stages=2)[0] == ("s", "x")
    assert ladder(points, known, CascadeOptions(), max_stages=1)[0] == ("x",)


def test_who_tells_no_log_probabilities_is_only_asked_last() -> None:
    known = {"s": card("s", parameters_b=1.0), "m": card("m", parameters_b=2.0, capabilities=frozenset({Capability.LOGPROBS}))}
    points = scored(s=0.5, m=0.6)

    assert ladder(points, known, CascadeOptions(confidence="logprob"), max_stages=3)[0] == ("m",)


async def test_named_experts_are_asked_in_the_order_in_which_they_are_named() -> None:
    snapshot = snapshot_of(cards())
    asked = query(snapshot, "Anything", pick=PickRule("top_k", 8), only=["mirror", "atlas"], experts=["atlas", "generalist", "mirror"])
    decision = await (await router(snapshot)).route(asked, snapshot)

    assert decision.selected == ("atlas", "mirror")
    with pytest.raises(NoEligibleExpert, match="none of the cascade's experts"):
        await (await router(snapshot)).route(query(snapshot, "Anything", only=["mirror"], experts=["atlas"]), snapshot)


async def test_a_query_like_nothing_known_goes_to_the_fallback_alone() -> None:
    snapshot = snapshot_of(cards())
    decision = await (await router(snapshot)).route(query(snapshot, "zzz qqq", fallback="generalist"), snapshot)

    assert decision.fallback
    assert decision.selected == ("generalist",)
    assert decision.cascade is None


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"treshold": 0.5}, "did you mean 'threshold'"),
        ({"threshold": 1.5}, "from 0 to 1"),
        ({"threshold": "high"}, "from 0 to 1"),
        ({"min_share": 0}, "above 0"),
        ({"samples": 1}, "from 2 to 8"),
        ({"samples": True}, "from 2 to 8"),
        ({"confidence": "agrement"}, "did you mean 'agreement'"),
        ({"confidence": "judge"}, "must name a registered expert"),
        ({"judge_expert": 3}, "an expert's id"),
        ({"experts": []}, "a list of expert ids"),
        ({"experts": "atlas"}, "a list of expert ids"),
        ({"base": "cascade"}, "must be a router"),
        ({"base": "randon"}, "did you mean 'random'"),
        ({"base": []}, "must be a router"),
        ({"base_options": 3}, "must be an object"),
        ({"base_options": {"flor": 0.3}}, "did you mean 'floor'"),
    ],
)
async def test_wrong_options_are_refused_when_a_strategy_is_stored(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        (await router(snapshot_of())).check_options(options)


async def test_a_judge_that_may_not_be_asked_is_named() -> None:
    snapshot = snapshot_of(cards())
    made = await router(snapshot)
    with pytest.raises(InvalidRequest, match="is not registered; did you mean 'atlas'"):
        await made.route(query(snapshot, "What is 40 plus 2?", confidence="judge", judge_expert="atlass"), snapshot)


def test_experts_that_a_cascade_names_have_to_be_registered() -> None:
    options = {"experts": ["a"], "judge_expert": "j", "base_options": {"keyword_expert": "k"}}
    named = Strategy("x", router="cascade", router_options=options).named_experts()

    assert named == {
        "router_options.judge_expert": "j",
        "router_options.experts[0]": "a",
        "router_options.base_options.keyword_expert": "k",
    }
