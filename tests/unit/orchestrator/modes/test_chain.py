"""Chain-of-Experts: each step is routed anew and reads the draft; it stops when nothing changes."""

from __future__ import annotations

from collections.abc import Sequence

from domain.chat import text_of
from domain.errors import ExpertUnreachable
from domain.routing import RoutingQuery
from tests.fakes.workers import Fails, Says
from tests.unit.orchestrator.modes.rig import Rig


def by_draft(query: RoutingQuery) -> Sequence[str]:
    """Who is best depends on what has been answered so far."""
    asked = text_of(query.request.messages[-1])
    known = {card.id for card in query.experts}
    wanted = "c" if "42" in asked else "a"
    return [wanted] if wanted in known else sorted(known)[:1]


async def test_the_next_expert_is_chosen_by_the_question_with_the_draft() -> None:
    rig = Rig("chain", {"a": "42", "c": "XLII", "b": "XLII"}, choose=by_draft)

    assert await rig.ask() == "XLII"
    assert rig.workers.called() == ["a", "c", "b"]
    assert "]\n42\n[end" in rig.shown_to("c")
    assert [call.note for call in rig.trace.calls] == ["a answered", "c changed it", "b confirmed it"]


async def test_a_draft_that_is_confirmed_ends_the_chain() -> None:
    rig = Rig("chain", {"a": "42", "b": "The answer is 42."})

    assert await rig.ask() == "The answer is 42."
    assert rig.workers.called() == ["a", "b"]
    assert rig.trace.aggregator == "chain:b"
    assert rig.trace.aggregator_reason == "a answered; b confirmed it"


async def test_nobody_is_asked_twice_and_a_chain_ends_when_nobody_is_left() -> None:
    rig = Rig("chain", {name: name for name in "abcde"}, mode_options={"steps": 8})

    await rig.ask()
    assert sorted(rig.workers.called()) == ["a", "b", "c", "d", "e"]


async def test_an_expert_that_fails_on_the_way_leaves_the_draft_to_the_next() -> None:
    rig = Rig("chain", {"a": "42", "b": Fails(ExpertUnreachable("gone")), "c": "43"})

    assert await rig.ask() == "43"
    assert "]\n42\n[end" in rig.shown_to("c")
    assert rig.trace.aggregator_reason == "a answered; b gave no answer, so the draft stays; c changed it"


async def test_a_first_expert_that_fails_is_passed_over() -> None:
    rig = Rig("chain", {"a": Fails(ExpertUnreachable("gone")), "b": "42", "c": "42"})

    assert await rig.ask() == "42"
    assert "draft" not in rig.shown_to("b")


async def test_an_empty_answer_on_the_way_leaves_the_draft_as_it_is() -> None:
    rig = Rig("chain", {"a": "42", "b": "", "c": Fails(ExpertUnreachable("gone"))})

    assert await rig.ask() == "42"
    assert "]\n42\n[end" in rig.shown_to("c")
    assert rig.trace.aggregator_reason == "a answered; b gave no answer, so the draft stays; c gave no answer, so the draft stays"


async def test_a_draft_is_not_confirmed_where_json_was_asked_for_and_it_is_none() -> None:
    """Drafts are not told of ``response_format``; the last expert is."""
    rig = Rig("chain", {"a": "It is 42.", "b": "It is 42.", "c": '{"x": 42}'})

    assert await rig.ask(params={"response_format": {"type": "json_object"}}) == '{"x": 42}'
    assert [call.note for call in rig.trace.calls] == ["a answered", "b confirmed it", "c changed it"]


async def test_a_draft_is_not_confirmed_before_somebody_could_call_the_tools() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    rig = Rig("chain", {"a": "I cannot add.", "b": "I cannot add.", "c": Says("", message={"tool_calls": [call]})})
    await rig.ask(params={"tools": [{"type": "function", "function": {"name": "add"}}]})

    assert rig.workers.called() == ["a", "b", "c"]
    assert rig.trace.answered_by == "c"
