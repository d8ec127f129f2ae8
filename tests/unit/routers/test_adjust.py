"""What is laid over scores: each term by its weight, the order kept, the range kept, and all of it told."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.adjustments import Circumstances, RoutingAdjustments, blended_price
from domain.errors import InvalidRequest
from domain.experts import Price
from domain.routing import PickRule, RoutingQuery
from routers.adjust import Terms, adjusted_scores, terms_of
from routers.explicit import ExplicitRouter
from routers.fixed import FixedRouter
from routers.random_router import RandomRouter
from routers.ranking import rank
from tests.fakes.routing import card, query, skills_router, snapshot_of

CHEAP, DEAR = card("cheap", price=Price(0.1, 0.5)), card("dear", price=Price(2.0, 6.0))
NOBODY_KNOWS = Circumstances()


def with_boosts(count: int, boosts: list[float]) -> list[Terms]:
    return [Terms(boost=boost) for boost in boosts[:count]]


def test_a_price_is_of_three_parts_prompt_and_one_part_completion() -> None:
    assert blended_price(DEAR) == pytest.approx(3.0)


def test_each_term_is_its_weight_times_what_it_is_about() -> None:
    adjustments = RoutingAdjustments(boost={"cheap": 0.3}, price_weight=0.1, load_weight=0.4, session_weight=0.2)
    loads = {"cheap": 0.5, "dear": 7.0}
    circumstances = Circumstances(lambda expert: loads[expert.id], lambda: {"dear": 0.75, "cheap": 0.25})

    cheap, dear = terms_of([CHEAP, DEAR], adjustments, circumstances)

    assert cheap == Terms(boost=0.3, price=pytest.approx(-0.02), load=pytest.approx(-0.2), session=pytest.approx(0.05))
    assert dear == Terms(boost=0.0, price=pytest.approx(-0.3), load=pytest.approx(-0.8), session=pytest.approx(0.15))


def test_what_has_no_weight_is_not_even_asked_for() -> None:
    def forbidden(*_: object) -> float:
        raise AssertionError

    circumstances = Circumstances(forbidden, forbidden)  # type: ignore[arg-type]

    assert terms_of([CHEAP], RoutingAdjustments(boost={"cheap": 0.1}), circumstances) == [Terms(boost=0.1)]


@given(st.lists(st.tuples(st.floats(0.001, 1), st.floats(-3, 3)), min_size=1, max_size=12))
def test_scores_stay_in_their_range_and_in_the_order_of_the_sums(pairs: list[tuple[float, float]]) -> None:
    """Also where everybody is below 0 or above 1: a plain cut would make them equals."""
    scores = [score for score, _ in pairs]
    sums = [score + boost for score, boost in pairs]
    found = adjusted_scores(scores, with_boosts(len(pairs), [boost for _, boost in pairs]))

    assert all(0 < score <= 1 for score in found)
    by_sum = sorted(range(len(pairs)), key=lambda i: sums[i])
    assert all(found[a] <= found[b] for a, b in pairwise(by_sum))


def test_far_below_zero_the_better_is_still_the_better() -> None:
    first, second = adjusted_scores([0.9, 0.8], [Terms(price=-2.0), Terms(price=-2.0)])

    assert first > second > 0


def test_a_sum_within_the_range_is_the_score() -> None:
    assert adjusted_scores([0.82], [Terms(price=-0.05, load=-0.1)]) == [pytest.approx(0.67)]


def test_who_has_no_score_at_all_gets_none_by_losing_nothing() -> None:
    assert adjusted_scores([0.0, 0.0, 0.0], [Terms(), Terms(load=-0.1), Terms(boost=0.2)]) == [0.0, 0.0, pytest.approx(0.2)]


def test_the_score_and_what_changed_it_are_told_without_what_changed_nothing() -> None:
    assert Terms(price=-0.05, load=-0.1, session=0.001).told(0.82) == "0.82, −0.05 price, −0.10 load"


# --- around a router ---------------------------------------------------------------------------------------------------

SNAPSHOT = snapshot_of([card("calculator", price=Price(4.0, 4.0)), card("atlas"), card("mirror"), card("generalist", max_in_flight=4)])


def asking(adjustments: RoutingAdjustments, circumstances: Circumstances = NOBODY_KNOWS, **fields: object) -> RoutingQuery:
    asked = query(SNAPSHOT, "What is 40 plus 2?", pick=PickRule("top_k", 1))
    return replace(asked, adjustments=adjustments, circumstances=circumstances, **fields)  # type: ignore[arg-type]


async def first(adjustments: RoutingAdjustments, circumstances: Circumstances = NOBODY_KNOWS) -> str:
    router = await skills_router(SNAPSHOT)
    return (await router.route(asking(adjustments, circumstances), SNAPSHOT)).selected[0]


async def test_a_boost_a_price_a_queue_and_a_session_each_change_who_is_asked() -> None:
    busy = Circumstances(load=lambda expert: 1.5 if expert.id == "calculator" else 0.0)
    known = Circumstances(session_shares=lambda: {"mirror": 1.0})

    assert await first(RoutingAdjustments()) == "calculator"
    assert await first(RoutingAdjustments(boost={"mirror": 1.0})) == "mirror"
    assert await first(RoutingAdjustments(price_weight=0.2)) == "generalist"
    assert await first(RoutingAdjustments(load_weight=0.5), busy) == "generalist"
    assert await first(RoutingAdjustments(load_weight=0.5)) == "calculator"
    assert await first(RoutingAdjustments(session_weight=1.0), known) == "mirror"


async def test_every_considered_expert_says_how_its_score_came_about() -> None:
    router = await skills_router(SNAPSHOT)
    decision = await router.route(asking(RoutingAdjustments(price_weight=0.2, boost={"atlas": 0.25})), SNAPSHOT)
    why = {expert.expert_id: expert.why for expert in decision.considered}

    assert "−0.80 price: addition 0.96 of 50 measured" in why["calculator"]
    assert "+0.25 boost: addition" in why["atlas"]
    assert "price" not in why["atlas"]
    assert why["generalist"].startswith("0.56: addition")
    assert [expert.score for expert in decision.considered] == sorted((e.score for e in decision.considered), reverse=True)


def test_without_adjustments_the_scores_are_passed_on_as_they_are() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.4])

    assert rank(asking(RoutingAdjustments()), scores, str).scores is scores


@pytest.mark.parametrize("router", [ExplicitRouter(), FixedRouter(), RandomRouter()], ids=lambda router: router.name)
async def test_a_router_that_scores_nobody_refuses_what_a_request_wants_adjusted(
    router: ExplicitRouter | FixedRouter | RandomRouter,
) -> None:
    asked = asking(RoutingAdjustments(), options={} if router.name == "random" else {"experts": ["atlas"]})
    asked = replace(asked, request=replace(asked.request, options=replace(asked.request.options, price_weight=0.1)))

    with pytest.raises(InvalidRequest, match="scores nobody") as refused:
        await router.route(asked, SNAPSHOT)
    assert refused.value.param == "consilium.price_weight"
