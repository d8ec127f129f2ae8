"""Every choice after routing tells its reason: in the trace, whether the answer is streamed or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.chat import ChatRequest, RequestOptions
from domain.errors import ExpertUnreachable
from domain.experts import HealthState
from domain.skills import AggregatorProfile, SkillCount
from domain.strategy import Strategy
from domain.trace import Trace
from orchestrator.answer import Progress
from tests.fakes.workers import Fails, Says
from tests.unit.orchestrator.test_pipeline import Setup, ask

PROFILES = {
    "a": AggregatorProfile("a", {"sums": SkillCount(10, 9)}, SkillCount(20, 9)),
    "b": AggregatorProfile("b", {"sums": SkillCount(10, 2)}, SkillCount(20, 12)),
}
NOTHING = Says("", pieces=("",))
THINKS = Says("", pieces=("",), reasoning="hm")


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def carried_out(setup: Setup, request: ChatRequest, stream: bool) -> tuple[str, Trace]:
    """The answer and its trace; of a stream, also that what was announced is what happened."""
    if not stream:
        answer = await setup.orchestrator.run(request)
        return answer.choices[0].text, answer.trace
    opened = await setup.orchestrator.open_stream(replace(request, stream=True))
    said, ends = "", 0
    async for event in opened:
        if not isinstance(event, Progress):
            said += "".join(str(choice.delta.get("content") or "") for choice in event.choices)
            ends += sum(choice.finish_reason is not None for choice in event.choices)
    trace = opened.trace
    assert ends == 1
    assert opened.decision == trace.decision
    if all(call.status == "ok" for call in trace.calls):
        assert opened.announced_aggregator == str(trace.aggregator).removesuffix(" (fallback)")
        assert opened.num_planned_calls == trace.num_calls
    return said, trace


async def test_one_expert(stream: bool) -> None:
    _, trace = await carried_out(Setup({"a": "2"}, "a"), ask(), stream)

    assert (trace.aggregator, trace.aggregator_reason) == ("single", "one expert was asked")


async def test_a_vote_names_who_agreed(stream: bool) -> None:
    _, trace = await carried_out(Setup({"a": "5", "b": "6", "c": "6"}, "a", "b", "c"), ask("consilium/vote"), stream)

    assert (trace.aggregator, trace.aggregator_reason) == ("vote", "2 of 3 candidates agree (b, c)")


async def test_the_first_says_that_it_is_the_best_scored(stream: bool) -> None:
    _, trace = await carried_out(Setup({"a": "5", "b": "6"}, "a", "b"), ask("consilium/first"), stream)

    assert (trace.aggregator, trace.aggregator_reason) == ("first", "the best-scored candidate that answered")


async def test_a_fusing_expert_is_told_with_the_measurement_that_chose_it(stream: bool) -> None:
    setup = Setup({"a": ["2", "two"], "b": "3"}, "a", "b", aggregator_profiles=PROFILES)

    _, trace = await carried_out(setup, ask("consilium/panel"), stream)

    assert trace.aggregator == "fuse:a"
    assert trace.aggregator_reason == "a is the best aggregator of 3 usable (score 0.79: 9 of 10 right in sums)"


@pytest.mark.parametrize(
    ("options", "strategy_s", "why"),
    [
        (RequestOptions(aggregator_expert="b"), None, "the request names b"),
        (RequestOptions(), "b", "the strategy names b"),
        (RequestOptions(), "c", "c, which the strategy names, cannot be asked; b is the best aggregator of 2 usable"),
    ],
)
async def test_a_fusing_expert_that_was_named_says_by_whom(options: RequestOptions, strategy_s: str | None, why: str, stream: bool) -> None:
    setup = Setup({"a": "2", "b": ["3", "two"]}, "a", "b", aggregator_profiles={"b": replace(PROFILES["a"], expert_id="b")})
    setup.directory.health["c"] = HealthState.OPEN
    setup.directory._snapshot.strategies["panel"] = Strategy("panel", aggregator_expert=strategy_s)  # type: ignore[index]

    _, trace = await carried_out(setup, ask("consilium/panel", options=options), stream)

    assert trace.aggregator == "fuse:b"
    assert str(trace.aggregator_reason).startswith(why)


async def test_a_panel_without_a_usable_aggregator_says_why_it_voted(stream: bool) -> None:
    setup = Setup({"a": "2", "b": "2", "c": "3"}, "a", "b", "c")
    setup.directory.health["fuser"] = HealthState.OPEN

    _, trace = await carried_out(setup, ask("consilium/panel"), stream)

    assert trace.aggregator == "vote"
    assert trace.aggregator_reason == "no aggregator is usable, so 2 of 3 candidates agree (a, b)"


@pytest.mark.parametrize(
    ("max_calls", "called", "note"),
    [
        (3, ("a", "b"), "Note: max_calls leaves 3 calls, one of them to the aggregator, so 2 of 3 candidates are asked, without c."),
        (2, ("a",), "Note: max_calls leaves 2 calls, one of them to the aggregator, so 1 of 3 candidates is asked, without b, c."),
    ],
)
async def test_whom_the_cap_leaves_out_is_not_told_as_selected(max_calls: int, called: tuple[str, ...], note: str, stream: bool) -> None:
    setup = Setup({"a": "2", "b": "3", "c": "4", "fuser": "two"}, "a", "b", "c")

    _, trace = await carried_out(setup, ask("consilium/panel", options=RequestOptions(max_calls=max_calls)), stream)

    assert trace.decision is not None
    assert trace.decision.selected == called
    assert tuple(expert.expert_id for expert in trace.decision.considered if expert.selected) == called
    assert trace.decision.reason == f"as scripted {note}"
    assert trace.aggregator == ("fuse:fuser" if len(called) > 1 else "single")


async def test_the_rest_of_a_panel_that_failed(stream: bool) -> None:
    setup = Setup({"a": Fails(ExpertUnreachable("x")), "b": "3", "c": Fails(ExpertUnreachable("x"))}, "a", "b", "c")

    _, trace = await carried_out(setup, ask("consilium/vote"), stream)

    assert (trace.aggregator, trace.aggregator_reason) == ("single", "one of 3 candidates answered")


@pytest.mark.parametrize("says", [NOTHING, THINKS, Says(" \n", pieces=(" ", "\n"))])
async def test_an_aggregator_that_answers_nothing_gives_way_to_the_best_candidate(says: Says, stream: bool) -> None:
    text, trace = await carried_out(Setup({"a": "2", "b": "3", "fuser": says}, "a", "b"), ask("consilium/panel"), stream)

    assert text.strip() == "2"
    assert trace.answer is not None
    assert trace.answer.strip() == "2"
    assert trace.aggregator == "fuse:fuser (fallback)"
    assert "it answered nothing, so the best-scored candidate that answered stands in, a" in str(trace.aggregator_reason)
    assert trace.usage.total_tokens == 3 * 8


async def test_a_candidate_that_answers_nothing_does_not_stand_in_either(stream: bool) -> None:
    setup = Setup({"a": "", "b": "3", "c": "4", "fuser": Fails(ExpertUnreachable("gone"))}, "a", "b", "c")

    text, trace = await carried_out(setup, ask("consilium/panel"), stream)

    assert text == "3"
    assert "it failed (gone), so the best-scored candidate that answered stands in, b" in str(trace.aggregator_reason)


async def test_an_aggregator_that_only_calls_a_tool_has_answered(stream: bool) -> None:
    call: dict[str, Any] = {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "weather", "arguments": "{}"}}]}
    setup = Setup({"a": "2", "b": "3", "fuser": Says("", pieces=("",), message=call)}, "a", "b")

    text, trace = await carried_out(setup, ask("consilium/panel"), stream)

    assert text == ""
    assert trace.aggregator == "fuse:fuser"
