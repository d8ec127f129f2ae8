"""What counts as a vote: answers and tool calls, not silence."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from domain.experts import Capability, ExpertCard
from domain.routing import PickRule
from domain.strategy import Strategy
from orchestrator.pipeline import Orchestrator
from tests.fakes.directory import FakeDirectory, FakeRouter, KeptTraces, card
from tests.fakes.workers import Says, ScriptedWorkers
from tests.unit.orchestrator.test_pipeline import Setup, ask

BY_SIZE = Strategy("sizes", pick=PickRule("top_k", 5), aggregator="vote", mode_options={"ties": "size"})
TOOLS = frozenset({Capability.TOOLS})
ABLE = tuple(card(name, capabilities=TOOLS) for name in "abc")
SILENT = Says("", reasoning="so many thoughts", finish_reason="length")


_ids = itertools.count()


def calls(name: str, arguments: str = "{}") -> Says:
    """A call of the tool *name*, with another id each time, as servers give them."""
    call = {"id": f"call-{next(_ids)}", "type": "function", "function": {"name": name, "arguments": arguments}}
    return Says("", message={"tool_calls": [call]})


async def elected(replies: dict[str, Says | str], model: str = "consilium/vote") -> tuple[str, Setup]:
    """The answer's text, or its tool call as ``name(arguments)``."""
    setup = Setup(replies, *replies, experts=ABLE)
    answer = await setup.orchestrator.run(ask(model, params={"tools": [{"type": "function"}]}))
    message = answer.choices[0].message
    for call in message.get("tool_calls") or ():
        return f"{call['function']['name']}({call['function']['arguments']})", setup
    return answer.choices[0].text, setup


@pytest.mark.parametrize("model", ["consilium/vote", "consilium/panel"])
async def test_one_answer_wins_over_experts_that_answered_nothing(model: str) -> None:
    """Their reasoning was cut off; they do not agree on anything. A panel without a usable aggregator votes as well."""
    text, setup = await elected({"a": SILENT, "b": "579", "c": SILENT}, model)

    assert text == "579"
    assert setup.trace.aggregator == "vote"


async def test_where_nobody_answered_anything_the_best_scored_silence_is_the_answer() -> None:
    text, setup = await elected({"a": SILENT, "b": SILENT, "c": SILENT})

    assert text == ""
    assert setup.trace.status == "ok"


async def test_tool_calls_are_counted_by_what_they_call() -> None:
    text, _ = await elected({"a": calls("delete_all"), "b": calls("read"), "c": calls("read")})

    assert text == "read({})"


async def test_an_argument_called_answer_is_not_the_whole_call() -> None:
    """Read as an answer, all three would say 5."""
    arguments = json.dumps({"answer": 5})
    text, _ = await elected({"a": calls("delete_all", arguments), "b": calls("submit", arguments), "c": calls("submit", arguments)})

    assert text.startswith("submit")


async def test_arguments_differ_by_what_they_say_and_not_by_their_spaces_or_order() -> None:
    text, _ = await elected(
        {"a": calls("add", '{"x": 9, "y": 9}'), "b": calls("add", '{"x": 1, "y": 2}'), "c": calls("add", '{"y":2,"x":1}')}
    )

    assert text == 'add({"x": 1, "y": 2})'


async def test_arguments_that_are_no_json_are_compared_as_they_are() -> None:
    text, _ = await elected({"a": calls("add", "{"), "b": calls("add", "1,"), "c": calls("add", "1,")})

    assert text == "add(1,)"


DEEP = "[" * 3000
"""Python's reader of JSON gives up here, and not with a ``ValueError``."""


@pytest.mark.parametrize("said", [DEEP, DEEP + "]" * 3000, "[" * 400 + "]" * 400])
async def test_json_that_is_nested_too_deep_is_a_text_like_any_other(said: str) -> None:
    text, _ = await elected({"a": said, "b": "5", "c": "5"})

    assert text == "5"


async def test_arguments_that_are_nested_too_deep_are_compared_as_they_are() -> None:
    text, _ = await elected({"a": calls("add", DEEP), "b": calls("add", DEEP), "c": calls("add", "[1]")})

    assert text == f"add({DEEP})"


async def test_an_answer_that_is_nested_too_deep_is_no_json_that_was_asked_for() -> None:
    experts = tuple(card(name, capabilities=frozenset({Capability.JSON_SCHEMA})) for name in "ab")
    setup = Setup({"a": DEEP, "b": '{"x": 1}'}, "a", "b", experts=experts)
    answer = await setup.orchestrator.run(ask("consilium/vote", params={"response_format": {"type": "json_object"}}))

    assert answer.choices[0].text == '{"x": 1}'


# --- experts of different sizes ---------------------------------------------------------------------------------------


class Sized:
    """Experts with falling scores that say *answers*, with *sizes* in billions of parameters; None: the card does not tell."""

    def __init__(self, answers: Mapping[str, str], sizes: Mapping[str, float | None], *, drawn: Sequence[str] = (), **changes: Any) -> None:
        cards: list[ExpertCard] = [card(name, parameters_b=size) for name, size in sizes.items()]
        self.sink, self.router = KeptTraces(), FakeRouter(*(drawn or tuple(answers)))
        self.orchestrator = Orchestrator(
            directory=FakeDirectory(cards, strategies=[replace(BY_SIZE, **changes)]),
            routers={"skills": self.router},
            workers=ScriptedWorkers(answers),
            sinks=[self.sink],
        )

    async def ask(self) -> str:
        return (await self.orchestrator.run(ask("consilium/sizes"))).choices[0].text


@pytest.mark.parametrize(
    ("answers", "sizes", "told"),
    [
        ({"a": "2", "b": "3"}, {"a": 1.0, "b": 70.0}, "3"),
        ({"a": "2", "b": "3"}, {"a": 1.0, "b": 1.0}, "2"),
        ({"a": "2", "b": "3"}, {"a": 1.0, "b": None}, "2"),
        ({"a": "2", "b": "2", "c": "3"}, {"a": 1.0, "b": 1.0, "c": 70.0}, "2"),
        ({"a": "2", "b": "2", "c": "3", "d": "3"}, {"a": 8.0, "b": 8.0, "c": 1.0, "d": 14.0}, "2"),
        ({"a": "2", "b": "2", "c": "3", "d": "3", "e": "4"}, {"a": 8.0, "b": 8.0, "c": 9.0, "d": 9.0, "e": None}, "3"),
    ],
    ids=["larger", "as large", "unknown", "more votes come first", "sizes add up", "only those that are tied have to be known"],
)
async def test_of_as_many_votes_the_answer_of_the_larger_experts_is_told(
    answers: Mapping[str, str], sizes: Mapping[str, float | None], told: str
) -> None:
    assert await Sized(answers, sizes).ask() == told


async def test_what_size_has_decided_is_told() -> None:
    world = Sized({"a": "2", "b": "3"}, {"a": 1.0, "b": 70.5})
    await world.ask()

    reason = "1 of 2 candidates agree (b), as much as 1 other, and 70.5 billion parameters stand behind it"
    assert world.sink.traces[0].aggregator_reason == reason


async def test_an_expert_that_was_drawn_twice_is_not_twice_as_large() -> None:
    twice = Sized({"a": "2", "b": "3", "c": "3"}, {"a": 7.0, "b": 4.0, "c": 4.0}, drawn=("a", "a", "b", "c"))

    assert await twice.ask() == "3"


@pytest.mark.parametrize(("ties", "told"), [("size", "3"), ("score", "2")])
async def test_equal_weights_are_decided_by_size_where_that_is_asked_for(ties: str, told: str) -> None:
    """Nothing was measured and nobody has a score: 0.9 weighs what 0.9 weighs."""
    same = {"aggregator": "weighted_vote", "mode_options": {"weights": "posterior", "ties": ties}}
    world = Sized({"a": "2", "b": "3"}, {"a": 1.0, "b": 70.0}, **same)
    route = world.router.route

    async def scored_alike(query: Any, snapshot: Any) -> Any:
        decision = await route(query, snapshot)
        return replace(decision, considered=tuple(replace(expert, score=0.9) for expert in decision.considered))

    world.router.route = scored_alike  # type: ignore[method-assign]

    assert await world.ask() == told
