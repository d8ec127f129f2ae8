"""A known-weak expert beside the panel: what only it agrees with is left out."""

from __future__ import annotations

import asyncio

import pytest

from domain.errors import ExpertUnreachable, InvalidRequest
from domain.plan import CallRole
from tests.fakes.workers import Fails, Says, Stalls
from tests.unit.orchestrator.modes.rig import Rig


async def test_a_candidate_that_only_the_weak_expert_agrees_with_is_left_out() -> None:
    rig = Rig("contrast", {"a": "9", "b": "3", "weak": "The answer is 9"}, mode_options={"weak_expert": "weak"}, aggregator="vote")

    assert await rig.ask() == "3"
    assert rig.trace.aggregator == "contrast"
    assert "a agrees with weak, the weak expert, alone, so it was left out" in str(rig.trace.aggregator_reason)
    assert [call.role for call in rig.trace.calls] == [CallRole.CANDIDATE, CallRole.CANDIDATE, CallRole.STEP]


async def test_two_that_agree_stay_whatever_the_weak_expert_says() -> None:
    rig = Rig("contrast", {"a": "9", "b": "9", "c": "3", "weak": "9"}, mode_options={"weak_expert": "weak"}, aggregator="vote")

    assert await rig.ask() == "9"
    assert "a, b agree with weak, the weak expert" in str(rig.trace.aggregator_reason)


async def test_who_fuses_is_told_the_weak_answer_as_such() -> None:
    rig = Rig("contrast", {"a": "2", "b": "3", "weak": "9", "reader": "two"}, mode_options={"weak_expert": "weak"})

    assert await rig.ask() == "two"
    assert "[weak answer " in rig.shown_to("reader")
    assert "known to be poor at questions of this kind" in rig.shown_to("reader")


async def test_without_a_name_it_is_the_lowest_scored_that_was_not_selected() -> None:
    rig = Rig("contrast", {"a": "2", "b": "3", "e": "9", "weak": "9", "d": "9", "c": "9", "reader": "two"}, "a", "b")
    await rig.ask()

    (asked,) = [call.expert_id for call in rig.trace.calls if call.role is CallRole.STEP]
    assert asked in {"c", "d", "e", "weak"}


async def test_a_weak_expert_that_fails_changes_nothing() -> None:
    script = {"a": "2", "b": "3", "weak": Fails(ExpertUnreachable("gone")), "reader": "two"}
    rig = Rig("contrast", script, mode_options={"weak_expert": "weak"})

    assert await rig.ask() == "two"
    assert "weak answer" not in rig.shown_to("reader")


async def test_the_weak_experts_answer_is_never_told() -> None:
    rig = Rig("contrast", {**dict.fromkeys("ab", Fails(ExpertUnreachable("x"))), "weak": "9"}, mode_options={"weak_expert": "weak"})

    with pytest.raises(Exception, match="a: x"):
        await rig.ask()


async def test_a_weak_expert_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="ghost"):
        await Rig("contrast", {}, "a", "b").ask(mode_options={"weak_expert": "ghost"})


async def test_the_weak_expert_does_not_count_towards_a_quorum() -> None:
    script = {"a": "2", "b": Stalls(Says("2")), "c": Stalls(), "weak": "9"}
    rig = Rig("contrast", script, "a", "b", "c", mode_options={"weak_expert": "weak"}, aggregator="vote", quorum=2)
    asked = asyncio.create_task(rig.ask())
    while not {"a", "weak"} <= set(rig.workers.finished):
        await asyncio.sleep(0)
    for _ in range(20):  # turns in which those that are given up are cancelled
        await asyncio.sleep(0)
    rig.workers.release("b")

    assert await asked == "2"
    assert rig.workers.cancelled == ["c"]
