"""Evidence: passages by experts, filtered, and one answer from them with their sources named."""

from __future__ import annotations

from typing import Any

import pytest

from domain.chat import text_of
from domain.errors import ExpertUnreachable
from domain.plan import CallRole, ExpertCall
from orchestrator.modes.evidence import Passage, most_relevant
from tests.fakes.workers import Fails
from tests.unit.orchestrator.modes.rig import Rig, shown_in


async def test_who_answers_reads_every_passage_with_its_source() -> None:
    rig = Rig("evidence", {"a": "Ones add up.", "b": "One is odd.", "c": "NOTHING.", "reader": "2"})

    assert await rig.ask() == "2"
    shown = rig.shown_to("reader")
    assert "[passage by a " in shown
    assert "One is odd." in shown
    assert "passage by c" not in shown
    assert [call.role for call in rig.trace.calls] == [CallRole.STEP] * 3 + [CallRole.AGGREGATOR]
    assert rig.workers.calls_to("a")[0].params["max_tokens"] == 100


def test_the_most_relevant_passages_are_kept_each_once() -> None:
    said = [
        Passage("a", "Cats sleep."),
        Passage("b", "Oxygen has number 8."),
        Passage("c", "oxygen  has number 8."),
        Passage("d", "The number"),
    ]

    assert [one.source for one in most_relevant("Which atomic number has oxygen?", said, 2)] == ["b", "d"]


async def test_passages_whose_facts_do_not_hold_are_left_out() -> None:
    def reader(call: ExpertCall) -> str:
        if "You check facts" in text_of(call.messages[0]):
            return "2 of 10" if "]\nFalse." in shown_in(call) else "I would say 9"
        return "final"

    rig = Rig("evidence", {"a": "False.", "b": "True.", "reader": reader}, mode_options={"check_facts": True})

    assert await rig.ask() == "final"
    assert "True." in rig.shown_to("reader")
    assert "False." not in rig.shown_to("reader")
    assert "2 of 2 passages are kept" in str(rig.trace.aggregator_reason)


async def test_top_down_asks_who_knows_what_is_needed_until_nothing_is() -> None:
    script = {"a": "unused", "b": "Kenya's capital is Nairobi.", "reader": ["Yes, about geography.", "No.", "Nairobi"]}
    rig = Rig(
        "evidence",
        script,
        choose=lambda query: ["b"] if "geography" in text_of(query.request.messages[-1]) else ["a"],
        mode_options={"gathering": "top_down"},
    )

    assert await rig.ask() == "Nairobi"
    assert rig.workers.called() == ["reader", "b", "reader", "reader"]
    assert "What is needed: Yes, about geography." in rig.shown_to("b")


@pytest.mark.parametrize("says", ["No", "no, thank you", Fails(ExpertUnreachable("gone"))])
async def test_who_needs_nothing_answers_at_once(says: Any) -> None:
    rig = Rig("evidence", {"a": "x", "reader": [says, "2"]}, mode_options={"gathering": "top_down"})

    assert await rig.ask() == "2"
    assert rig.workers.called() == ["reader", "reader"]


async def test_without_who_answers_the_best_expert_does_alone() -> None:
    def a(call: ExpertCall) -> str:
        return "a passage" if "background" in text_of(call.messages[0]) else "2"

    rig = Rig("evidence", {"a": a, "b": "b passage", "reader": Fails(ExpertUnreachable("gone"))})

    assert await rig.ask() == "2"
    assert rig.trace.aggregator == "evidence:a (fallback)"


async def test_passages_are_never_told_as_the_answer() -> None:
    rig = Rig("evidence", {"a": "a passage", "b": "b passage", "reader": ""})

    assert await rig.ask() == "a passage"
    assert rig.workers.called() == ["a", "b", "reader", "a"]
    assert rig.workers.calls_to("a")[-1].messages == ({"role": "user", "content": "How much is 1 + 1?"},)
