"""A strategy in words: what each level of effort changes about it, and what is laid over its scores."""

from __future__ import annotations

from api.ui.recipe import adjustments_of, bounds_of, effort_lead, efforts_of
from domain.adjustments import RoutingAdjustments
from domain.budget import Budget
from domain.effort import EffortLevel, EffortRule
from domain.routing import PickRule
from domain.strategy import Strategy


def levels(strategy: Strategy) -> dict[str, str]:
    return {level.name: level.told for level in efforts_of(strategy)}


def test_of_a_panel_levels_take_fewer_or_more() -> None:
    assert levels(Strategy("panel", pick=PickRule("top_k", 3), max_calls=8)) == {
        "none": "1 expert, 512 tokens an answer, no thinking",
        "low": "2 experts at most, 4 calls at most, 2,048 tokens an answer, thinking low",
        "medium": "the strategy as it stands",
        "high": "5 experts, thinking high",
    }


def test_one_expert_stays_one() -> None:
    told = levels(Strategy("one", pick=PickRule("top_k", 1), max_calls=2))

    assert told["low"] == "2,048 tokens an answer, thinking low"
    assert told["high"] == "thinking high"


def test_a_level_of_its_own_stands_instead_of_the_built_in_one() -> None:
    rule = EffortRule(default="low", from_reasoning_effort=True, levels={"high": EffortLevel(k=4, mode="moa")})
    strategy = Strategy("own", pick=PickRule("top_k", 2), effort=rule)
    (high,) = [level for level in efforts_of(strategy) if level.is_own]

    assert (high.name, high.told) == ("high", "4 experts, mode moa")
    assert effort_lead(rule) == "A request chooses with consilium.effort, or with OpenAI's reasoning_effort; without that it is low."
    assert effort_lead(EffortRule()).endswith("without that the strategy stands as it is.")


def test_what_is_laid_over_scores_and_what_bounds_are_told_where_they_are() -> None:
    adjusted = RoutingAdjustments(deny=("b",), boost={"a": 0.2, "c": -0.1}, price_weight=0.5)

    assert adjustments_of(Strategy("s", adjustments=adjusted)) == [("never", "b"), ("boost", "a +0.2, c -0.1"), ("weight of price", "0.5")]
    assert adjustments_of(Strategy("s")) == bounds_of(Strategy("s")) == []
    assert bounds_of(Strategy("s", budget=Budget(max_tokens=9000, max_price=0.01))) == [
        ("tokens", "9,000 in all"),
        ("price", "0.01 US dollars"),
    ]
