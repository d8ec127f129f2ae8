"""How much a request is worth: what each level changes, who chooses it, and what stands over it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.chat import ChatRequest, RequestOptions
from domain.effort import EFFORT_NAMES, EffortLevel, EffortRule
from domain.errors import InvalidRequest
from domain.plan import CallRole, ExpertCall
from domain.routing import PickRule
from domain.strategy import MODE_NAMES, Strategy
from orchestrator.admission.estimate import dearest, estimate
from orchestrator.effort import LEVELS, with_effort
from orchestrator.resolve import Target
from tests.fakes.directory import card
from tests.unit.orchestrator.modes.rig import CARDS, Rig
from tests.unit.orchestrator.modes.test_every_mode import ANSWERS
from tests.unit.orchestrator.test_pipeline import ask

THREE = Strategy("s", pick=PickRule("top_k", 3), max_calls=8)
SCRIPT = {**ANSWERS, "d": "5", "e": "6"}
BY_FIELD = EffortRule(from_reasoning_effort=True)


def rig(mode: str = "panel", **changes: Any) -> Rig:
    """Selects as many as the request's pick allows."""
    return Rig(mode, SCRIPT, choose=lambda query: "abcde"[: query.pick.k], **{"pick": THREE.pick, **changes})


def picked(effort: str, pick: PickRule) -> PickRule:
    target = Target(Strategy("s", pick=pick))
    return with_effort(ask(options=RequestOptions(effort=effort)), target)[1].strategy.pick


@pytest.mark.parametrize(("effort", "num"), [("none", 1), ("low", 2), ("medium", 3), ("high", 5), (None, 3)])
async def test_a_level_sets_how_many_experts_are_asked(effort: str | None, num: int) -> None:
    asked = rig(max_calls=8)
    await asked.ask(effort=effort)

    assert [call.role for call in asked.workers.calls].count(CallRole.CANDIDATE) == num


@pytest.mark.parametrize("mode", MODE_NAMES)
async def test_no_effort_is_one_call_of_the_best_expert_whatever_the_mode(mode: str) -> None:
    asked = rig(mode)

    assert await asked.ask(effort="none") == "2"
    assert asked.workers.called() == ["a"]
    assert asked.trace.aggregator == "single"


@pytest.mark.parametrize("mode", MODE_NAMES)
async def test_low_effort_is_at_most_four_calls_whatever_the_mode(mode: str) -> None:
    asked = rig(mode)
    await asked.ask(effort="low")

    assert asked.trace.num_calls <= 4


def test_a_lower_k_keeps_the_pick_and_a_higher_one_takes_all_of_them() -> None:
    assert picked("low", PickRule("dynamic", 3, 0.7)) == PickRule("dynamic", 2, 0.7)
    assert picked("high", PickRule("dynamic", 3, 0.7)) == PickRule("top_k", 5, 0.7)
    assert picked("high", PickRule("sample", 3)) == PickRule("sample", 5)


def test_a_strategy_of_one_expert_stays_one_at_any_effort() -> None:
    assert [picked(effort, PickRule("top_k", 1)).k for effort in EFFORT_NAMES] == [1, 1, 1, 1]


async def test_what_the_request_says_itself_stands_over_its_level() -> None:
    asked = rig("moa")
    await asked.ask(effort="none", k=2, mode="panel", params={"max_tokens": 700})

    assert asked.workers.called() == ["a", "b", "reader"]
    assert [call.params["max_tokens"] for call in asked.workers.calls] == [700, 700, 700]


async def test_options_of_a_mode_keep_the_mode() -> None:
    """Another one would refuse them."""
    asked = rig("moa")
    await asked.ask(effort="none", mode_options={"layers": 1})

    assert asked.trace.aggregator is not None
    assert asked.workers.called() == ["a"]


async def test_the_budget_caps_whatever_the_effort() -> None:
    asked = rig(max_calls=3)
    await asked.ask(effort="high")

    assert asked.trace.num_calls == 3


async def test_each_answer_is_as_long_as_the_level_allows_and_never_longer_than_the_card_says() -> None:
    levels = {"low": EffortLevel(max_tokens=100)}
    cards = [replace(one, sampling={"max_tokens": 40}) if one.id == "b" else one for one in CARDS]
    asked = rig(effort=EffortRule(levels=levels))
    asked.directory._snapshot = replace(asked.directory.snapshot(), experts={one.id: one for one in cards})
    await asked.ask(effort="low")

    assert {call.expert.id: call.params["max_tokens"] for call in asked.workers.calls} == {"a": 100, "b": 40, "c": 100, "reader": 100}


async def test_an_answer_that_its_context_bounds_more_is_left_to_the_context() -> None:
    """A server refuses a prompt and an answer that are longer together than its context."""
    asked = rig()
    short = {one.id: replace(one, context_length=300) for one in CARDS}
    asked.directory._snapshot = replace(asked.directory.snapshot(), experts=short)
    await asked.ask(effort="none")

    assert "max_tokens" not in asked.workers.calls[0].params


THINKING = {"reasoning_effort": "medium", "chat_template_kwargs": {"enable_thinking": True, "language": "en"}}


async def called_with(sampling: dict[str, Any], effort: str, params: dict[str, Any] | None = None) -> ExpertCall:
    asked = rig()
    thinks = {one.id: replace(one, sampling=sampling) for one in CARDS}
    asked.directory._snapshot = replace(asked.directory.snapshot(), experts=thinks)
    await asked.ask(effort=effort, params=params)
    return asked.workers.calls[0]


@pytest.mark.parametrize(("effort", "flag"), [("none", False), ("low", True), ("high", True)])
async def test_experts_that_can_be_told_think_as_much_as_the_level_says(effort: str, flag: bool) -> None:
    params = (await called_with(THINKING, effort)).params

    assert params["reasoning_effort"] == effort
    assert params["chat_template_kwargs"] == {"enable_thinking": flag, "language": "en"}


async def test_an_expert_without_a_switch_is_told_nothing_that_it_would_refuse() -> None:
    params = (await called_with({"temperature": 0}, "none")).params

    assert params.keys() == {"temperature", "max_tokens"}


async def test_medium_leaves_thinking_to_the_card_and_the_caller_stands_over_the_level() -> None:
    assert (await called_with(THINKING, "medium")).params["chat_template_kwargs"] == THINKING["chat_template_kwargs"]
    assert (await called_with(THINKING, "none", {"reasoning_effort": "high"})).params["reasoning_effort"] == "high"


@pytest.mark.parametrize(("said", "num"), [("none", 1), ("minimal", 2), ("low", 2), ("medium", 3), ("high", 5), ("xhigh", 5)])
async def test_reasoning_effort_is_the_level_where_the_strategy_says_so(said: str, num: int) -> None:
    asked = rig(effort=BY_FIELD)
    await asked.ask(params={"reasoning_effort": said})

    assert [call.role for call in asked.workers.calls].count(CallRole.CANDIDATE) == num
    assert not any("reasoning_effort" in call.params for call in asked.workers.calls)
    assert asked.trace.decision is not None
    assert asked.trace.decision.detail["effort"]["by"] == "reasoning_effort"


async def test_reasoning_effort_goes_to_the_experts_as_it_came_everywhere_else() -> None:
    asked = rig()
    await asked.ask(params={"reasoning_effort": "high"})

    assert [call.params["reasoning_effort"] for call in asked.workers.calls] == ["high"] * 4


async def test_the_option_stands_over_reasoning_effort_and_that_over_the_default() -> None:
    rule = EffortRule(default="none", from_reasoning_effort=True)

    def level(request: ChatRequest) -> tuple[str, str]:
        effort = with_effort(request, Target(replace(THREE, effort=rule)))[0].effort
        assert effort is not None
        return effort.name, effort.by

    high = {"reasoning_effort": "high"}
    assert level(ask(params=high, options=RequestOptions(effort="low"))) == ("low", "request")
    assert level(ask(params=high)) == ("high", "reasoning_effort")
    assert level(ask()) == ("none", "strategy")


async def test_a_strategys_level_takes_the_place_of_the_built_in_one() -> None:
    asked = rig(effort=EffortRule(levels={"none": EffortLevel(k=2)}))
    await asked.ask(effort="none")

    assert asked.workers.called() == ["a", "b", "reader"]
    assert not any("max_tokens" in call.params for call in asked.workers.calls)


@pytest.mark.parametrize(
    ("request_", "rule", "param"),
    [
        (ask(options=RequestOptions(effort="huge")), EffortRule(), "consilium.effort"),
        (ask(params={"reasoning_effort": "huge"}), BY_FIELD, "reasoning_effort"),
    ],
)
def test_an_unknown_level_is_refused_with_those_that_there_are(request_: ChatRequest, rule: EffortRule, param: str) -> None:
    with pytest.raises(InvalidRequest, match="none, low, medium, high") as refused:
        with_effort(request_, Target(replace(THREE, effort=rule)))

    assert refused.value.param == param


async def test_the_trace_tells_the_level_who_chose_it_and_what_it_changed() -> None:
    asked = rig()
    await asked.ask(effort="low")

    assert asked.trace.decision is not None
    assert asked.trace.decision.detail["effort"] == {
        "level": "low", "by": "request", "k": 2, "max_calls": 4, "max_tokens": 2048, "thinking": "low",
    }  # fmt: skip


async def test_nothing_about_effort_is_told_where_there_is_none() -> None:
    asked = rig()
    await asked.ask()

    assert asked.trace.decision is not None
    assert "effort" not in asked.trace.decision.detail


def test_more_effort_needs_more_of_a_keys_limits() -> None:
    worst = dearest([card("a")])
    target = Target(THREE)
    needs = [estimate(*with_effort(ask(options=RequestOptions(effort=effort)), target), worst).tokens for effort in EFFORT_NAMES]

    assert needs == sorted(needs)
    assert needs[0] < needs[-1]


def test_every_level_has_its_row() -> None:
    assert set(LEVELS) == set(EFFORT_NAMES)
