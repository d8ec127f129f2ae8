"""Routing within limits: whom another router's scores would take, as far as price, latency and memory allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from domain.adjustments import RoutingAdjustments
from domain.errors import InvalidRequest, NoEligibleExpert
from domain.experts import Price
from domain.plan import CallRole
from domain.routing import PickRule, RoutingDecision
from domain.trace import CallRecord, Trace
from routers.budget_router import BudgetRouter
from routers.catalogue import RouterCatalogue
from routers.latencies import Latencies
from routers.random_router import RandomRouter
from routers.stickiness import SessionMemory
from tests.fakes.routing import card, query, skills_router, snapshot_of

PRICES = {"calculator": 4.0, "atlas": 0.4, "mirror": 0.4, "generalist": 1.0}
SNAPSHOT = snapshot_of([card(name, price=Price(usd, usd)) for name, usd in PRICES.items()])
SUM = "What is 40 plus 2?"
PANEL = PickRule("top_k", 3)


class Costs:
    def __init__(self, latencies: Mapping[str, float] | None = None, loads: Mapping[str, tuple[str, float]] | None = None) -> None:
        self._latencies, self._loads = latencies or {}, loads or {}

    def latency_ms(self, expert_id: str) -> float | None:
        return self._latencies.get(expert_id)

    def to_load(self) -> Mapping[str, tuple[str, float]]:
        return self._loads


async def budget_router(costs: Costs | None = None) -> BudgetRouter:
    routers = RouterCatalogue([await skills_router(SNAPSHOT), RandomRouter()])
    return BudgetRouter(routers, costs or Costs())


async def decide(costs: Costs | None = None, *, pick: PickRule = PANEL, text: str = SUM, **options: Any) -> RoutingDecision:
    return await (await budget_router(costs)).route(query(SNAPSHOT, text, pick=pick, **options), SNAPSHOT)


async def test_without_limits_the_bases_choice_stands() -> None:
    decision = await decide(pick=PickRule("top_k", 1))

    assert (decision.router, decision.selected) == ("budget", ("calculator",))
    assert decision.skills[0].skill == "addition"
    assert decision.detail["base"]["router"] == "skills"
    assert "The query needs addition; within no limits calculator is best by the scores of 'skills'" in decision.reason


async def test_the_sum_of_prices_stays_within_the_limit() -> None:
    assert (await decide(max_price=4.4)).selected == ("calculator", "atlas")
    assert (await decide(max_price=1.4)).selected == ("generalist", "atlas")
    assert (await decide(max_price=1.0, pick=PickRule("top_k", 1))).selected == ("generalist",)


async def test_who_is_over_a_limit_alone_has_no_score_and_says_which_limit() -> None:
    decision = await decide(max_price=1.0, pick=PickRule("top_k", 1))
    last = decision.considered[-1]

    assert (last.expert_id, last.score) == ("calculator", 0.0)
    assert last.why.startswith("left out: its price of 4 is over 1; addition 0.96")
    assert "within a price of 1 USD per million tokens generalist is best" in decision.reason


async def test_no_expert_slower_than_the_limit_is_asked_nor_one_of_unknown_latency() -> None:
    costs = Costs(latencies={"calculator": 900.0, "generalist": 300.0, "atlas": 100.0})
    decision = await decide(costs, max_latency_ms=500)
    why = {expert.expert_id: expert.why for expert in decision.considered}

    assert decision.selected == ("generalist", "atlas")
    assert "its latency of 900 ms is over 500" in why["calculator"]
    assert "consilium profile run" in why["mirror"]


async def test_servers_that_are_not_loaded_fit_into_the_memory_each_counted_once() -> None:
    loads = {"calculator": ("big", 500.0), "generalist": ("base", 80.0), "atlas": ("base", 80.0), "mirror": ("other", 80.0)}
    decision = await decide(Costs(loads=loads), max_memory_mb=100)

    assert decision.selected == ("generalist", "atlas")
    assert decision.detail["memory_mb"] == 80.0
    assert "loading it takes 500 MB, over 100" in decision.considered[-1].why


async def test_the_shares_of_the_set_sum_to_one_whoever_is_down() -> None:
    """A router never sees who is down: what is left is scored as before and shared anew."""
    everybody = await decide(max_price=10)
    router = await budget_router()
    without = await router.route(query(SNAPSHOT, SUM, pick=PANEL, only=["atlas", "mirror", "generalist"], max_price=10), SNAPSHOT)

    assert sum(everybody.detail["subset"].values()) == pytest.approx(1, abs=1e-3)
    assert sum(without.detail["subset"].values()) == pytest.approx(1, abs=1e-3)
    assert without.selected[0] == "generalist"


async def test_a_dynamic_pick_takes_few_of_the_set_and_a_drawn_one_stays_within_the_price() -> None:
    dynamic = await decide(pick=PickRule("dynamic", 3, 0.5), max_price=10)
    drawn = [await decide(pick=PickRule("sample", 4), max_price=4.4, text=f"What is 40 plus {n}?") for n in range(5)]

    assert dynamic.selected == ("calculator",)
    for decision in drawn:
        assert sum(PRICES[expert] for expert in decision.selected) <= 4.4 or len(decision.selected) == 1


async def test_adjusted_scores_decide() -> None:
    router = await budget_router()
    asked = query(SNAPSHOT, SUM, pick=PickRule("top_k", 1), max_price=10)
    decision = await router.route(replace(asked, adjustments=RoutingAdjustments(boost={"mirror": 1.0})), SNAPSHOT)

    assert decision.selected == ("mirror",)
    assert "+1.00 boost" in decision.considered[0].why


async def test_nobody_within_the_limits_is_told_with_everybodys_reason() -> None:
    with pytest.raises(NoEligibleExpert, match=r"no expert is within a price of 0\.1 USD per million tokens") as refused:
        await decide(max_price=0.1)

    assert set(refused.value.reasons) == set(PRICES)


async def test_a_session_stays_with_its_expert_where_the_base_wants_that_and_it_fits() -> None:
    sessions = SessionMemory()
    sessions.remember((None, "s"), "mirror")
    router = BudgetRouter(RouterCatalogue([await skills_router(SNAPSHOT, sessions=sessions)]), Costs())
    unclear: dict[str, Any] = {"session_id": "s", "base_options": {"sticky": True, "floor": 0.9}}

    decision = await router.route(query(SNAPSHOT, "zyx wvut qrs", pick=PANEL, max_price=1, **unclear), SNAPSHOT)

    assert (decision.router, decision.selected, decision.fallback) == ("budget", ("mirror",), False)
    assert "session 's' stays with mirror" in decision.reason
    sessions.remember((None, "s"), "calculator")
    with pytest.raises(NoEligibleExpert, match=r"stays with calculator\. It is not within a price of 1"):
        await router.route(query(SNAPSHOT, "zyx wvut qrs", max_price=1, **unclear), SNAPSHOT)


async def test_a_fallback_has_to_fit_too() -> None:
    strange = "zyx wvut qrs"
    router = await budget_router()
    fits = await router.route(query(SNAPSHOT, strange, fallback="generalist", max_price=1, base_options={"floor": 0.9}), SNAPSHOT)

    assert (fits.router, fits.selected, fits.fallback) == ("budget", ("generalist",), True)
    with pytest.raises(NoEligibleExpert, match="is not within a price of 1"):
        await router.route(query(SNAPSHOT, strange, fallback="calculator", max_price=1, base_options={"floor": 0.9}), SNAPSHOT)


@pytest.mark.parametrize(
    ("options", "param", "says"),
    [
        ({"max_prize": 1}, "router_options.max_prize", "did you mean 'max_price'"),
        ({"max_price": -1}, "router_options.max_price", "0 or more"),
        ({"max_latency_ms": True}, "router_options.max_latency_ms", "must be a number"),
        ({"max_memory_mb": float("inf")}, "router_options.max_memory_mb", "must be a number"),
        ({"base": "random"}, "router_options.base", "a router that scores experts"),
        ({"base": "budget"}, "router_options.base", "a router that scores experts"),
        ({"base": "skils"}, "router_options.base", "did you mean 'skills'"),
        ({"base": 3}, "router_options.base", "a router that scores experts"),
        ({"base_options": {"flor": 1}}, "router_options.flor", "did you mean 'floor'"),
        ({"base_options": []}, "router_options.base_options", "must be an object"),
    ],
)
async def test_wrong_options_are_refused_by_name(options: Mapping[str, Any], param: str, says: str) -> None:
    router = await budget_router()
    with pytest.raises(InvalidRequest) as refused:
        router.check_options(options)

    assert refused.value.param == param
    assert says in refused.value.message


# --- latencies ----------------------------------------------------------------------------------------------------------


def trace(latency_ms: float, *, role: CallRole = CallRole.CANDIDATE, status: str = "ok") -> Trace:
    return Trace("r", "auto", None, 0.0, "ok", calls=(CallRecord("a", role, status, latency_ms),))


def test_latencies_are_as_measured_until_the_expert_answers_and_then_follow_its_answers() -> None:
    latencies = Latencies()
    latencies.measured({"a": 100.0})
    measured = latencies.of("a")
    latencies.emit(trace(200.0))
    once = latencies.of("a")
    for _ in range(40):
        latencies.emit(trace(400.0))
    latencies.measured({"a": 100.0})

    assert (measured, once) == (100.0, 200.0)
    assert latencies.of("a") == pytest.approx(400.0, rel=0.02)
    assert latencies.of("b") is None


def test_only_answers_of_candidates_tell_a_latency() -> None:
    latencies = Latencies()
    latencies.emit(trace(5.0, role=CallRole.AGGREGATOR))
    latencies.emit(trace(5.0, status="error"))

    assert latencies.of("a") is None
