"""What counts as a vote: answers and tool calls, not silence."""

from __future__ import annotations

import itertools
import json

import pytest

from domain.experts import Capability
from tests.fakes.directory import card
from tests.fakes.workers import Says
from tests.unit.orchestrator.test_pipeline import Setup, ask

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
