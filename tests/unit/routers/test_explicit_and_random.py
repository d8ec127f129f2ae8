"""Routing by name and by lot."""

from __future__ import annotations

from collections import Counter

import pytest

from domain.errors import InvalidRequest, NoEligibleExpert
from domain.routing import PickRule
from routers.explicit import ExplicitRouter
from routers.fixed import FixedRouter
from routers.random_router import RandomRouter
from tests.fakes.routing import query, snapshot_of

SNAPSHOT = snapshot_of()


async def test_the_expert_named_as_model_is_selected() -> None:
    decision = await ExplicitRouter().route(query(SNAPSHOT, "anything", model="atlas"), SNAPSHOT)

    assert decision.selected == ("atlas",)
    assert decision.considered[0].why == "named by the model's name"


async def test_a_strategy_may_name_several_experts_in_its_order() -> None:
    decision = await ExplicitRouter().route(query(SNAPSHOT, "anything", experts=["mirror", "atlas"]), SNAPSHOT)

    assert decision.selected == ("mirror", "atlas")
    assert len(decision.considered) == 4


async def test_the_only_eligible_expert_needs_no_name() -> None:
    decision = await ExplicitRouter().route(query(SNAPSHOT, "anything", only=["atlas"]), SNAPSHOT)

    assert decision.selected == ("atlas",)


async def test_a_named_expert_that_is_not_eligible_is_refused_by_name() -> None:
    with pytest.raises(NoEligibleExpert, match="atlas") as caught:
        await ExplicitRouter().route(query(SNAPSHOT, "anything", model="atlas", only=["mirror", "generalist"]), SNAPSHOT)

    assert caught.value.reasons == {"atlas": "not eligible"}


async def test_no_name_at_all_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        await ExplicitRouter().route(query(SNAPSHOT, "anything"), SNAPSHOT)

    assert caught.value.param == "model"


@pytest.mark.parametrize("experts", ["atlas", [], [3], ["atlass"], ["x" * 100_000], "x" * 100_000])
async def test_a_wrong_list_of_experts_is_refused(experts: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await ExplicitRouter().route(query(SNAPSHOT, "anything", experts=experts), SNAPSHOT)

    assert caught.value.param == "router_options.experts"
    assert len(caught.value.message) < 200


async def test_by_lot_every_expert_is_equally_likely() -> None:
    drawn = Counter()
    for seed in range(2000):
        decision = await RandomRouter().route(query(SNAPSHOT, "anything", seed=seed), SNAPSHOT)
        drawn[decision.selected[0]] += 1

    assert set(drawn) == set(SNAPSHOT.experts)
    assert all(400 < count < 600 for count in drawn.values())


@pytest.mark.parametrize(("kind", "num", "num_different"), [("top_k", 3, 3), ("dynamic", 1, 1), ("sample", 9, None)])
async def test_the_pick_rule_says_how_many_are_drawn(kind: str, num: int, num_different: int | None) -> None:
    rule = PickRule(kind, 9 if kind == "sample" else 3)
    decision = await RandomRouter().route(query(SNAPSHOT, "anything", pick=rule), SNAPSHOT)

    assert len(decision.selected) == num
    assert num_different is None or len(set(decision.selected)) == num_different


# --- fixed --------------------------------------------------------------------------------------------------------------


async def test_a_list_is_asked_in_its_order_and_who_is_not_eligible_gives_its_place_to_the_next() -> None:
    snapshot = snapshot_of()
    experts = ["mirror", "nosuch", "atlas", "calculator"]
    decision = await FixedRouter().route(query(snapshot, "?", pick=PickRule("top_k", 2), experts=experts), snapshot)
    dynamic = await FixedRouter().route(query(snapshot, "?", pick=PickRule("dynamic", 3), experts=experts), snapshot)

    assert decision.selected == ("mirror", "atlas")
    assert dynamic.selected == ("mirror", "atlas", "calculator")
    assert [(e.expert_id, round(e.score, 2)) for e in decision.considered if e.score > 0] == [
        ("mirror", 1.0), ("atlas", 0.67), ("calculator", 0.33),
    ]  # fmt: skip


async def test_a_list_of_which_nobody_is_eligible_is_told() -> None:
    snapshot = snapshot_of()
    with pytest.raises(NoEligibleExpert, match="nobody of the list is eligible"):
        await FixedRouter().route(query(snapshot, "?", only=["atlas"], experts=["mirror"]), snapshot)


@pytest.mark.parametrize("options", [{}, {"experts": []}, {"experts": "atlas"}, {"experts": [1]}])
async def test_a_list_has_to_be_given(options: dict[str, object]) -> None:
    snapshot = snapshot_of()
    with pytest.raises(InvalidRequest, match="must be a list of expert ids"):
        await FixedRouter().route(query(snapshot, "?", **options), snapshot)
