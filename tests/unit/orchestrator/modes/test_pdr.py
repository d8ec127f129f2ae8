"""Parallel-Distill-Refine: drafts, a workspace of bounded size, and what is made of it."""

from __future__ import annotations

import pytest

from domain.chat import Usage
from domain.errors import ExpertUnreachable
from domain.plan import CallRole
from tests.fakes.workers import Fails, Says
from tests.unit.orchestrator.modes.rig import Rig

ROLES = {"draft": CallRole.CANDIDATE, "distil": CallRole.STEP, "answer": CallRole.AGGREGATOR}


async def test_drafts_are_distilled_and_only_the_workspace_goes_on() -> None:
    rig = Rig("pdr", {"a": "draft a", "b": "draft b", "c": "draft c", "reader": ["the notes", "final"]})

    assert await rig.ask() == "final"
    assert "draft b" in rig.shown_to("reader", 0)
    assert "the notes" in rig.shown_to("reader", 1)
    assert "draft b" not in rig.shown_to("reader", 1)
    assert [call.role for call in rig.trace.calls] == [ROLES["draft"]] * 3 + [ROLES["distil"], ROLES["answer"]]


async def test_each_round_drafts_from_the_workspace_of_the_one_before() -> None:
    script = {"a": ["a1", "a2"], "b": ["b1", "b2"], "reader": ["notes 1", "notes 2", "final"]}
    rig = Rig("pdr", script, mode_options={"drafts": 2, "rounds": 2})

    assert await rig.ask() == "final"
    assert "notes 1" in rig.shown_to("a", 1)
    assert "a1" not in rig.shown_to("a", 1)
    assert "notes 1" in rig.shown_to("reader", 1)
    assert "earlier workspace" in rig.shown_to("reader", 1)
    assert "notes 2" in rig.shown_to("reader", 2)


@pytest.mark.parametrize("distil", ["summary", "top_k", "random_k"])
async def test_no_workspace_is_longer_than_it_may_be(distil: str) -> None:
    """Sixteen tokens of four letters; of a draft the end stays, where answers stand."""
    long = {name: f"{name} " + "words " * 200 + f"so it is {name}" for name in "abc"}
    rig = Rig("pdr", {**long, "reader": "x" * 500}, mode_options={"workspace_tokens": 16, "distil": distil})
    await rig.ask()

    shown = rig.shown_to("reader", -1).partition("[workspace ")[2].partition("]\n")[2].partition("\n[end")[0]
    assert 0 < len(shown) <= 16 * 4 + 6
    if distil == "summary":
        assert rig.workers.calls_to("reader")[0].params["max_tokens"] == 16


async def test_top_k_keeps_the_best_drafts_and_asks_nobody_to_distil() -> None:
    rig = Rig("pdr", {"a": "1", "b": "2", "c": "3", "reader": "2"}, mode_options={"distil": "top_k", "keep": 2})
    await rig.ask()

    assert rig.workers.called() == ["a", "b", "c", "reader"]
    assert "]\n1\n\n2\n[end" in rig.shown_to("reader")


async def test_random_k_draws_the_same_for_the_same_seed() -> None:
    async def kept(seed: int) -> str:
        options = {"distil": "random_k", "keep": 1, "drafts": 5}
        rig = Rig("pdr", {**dict(zip("abcde", "12345", strict=True)), "reader": "x"}, mode_options=options)
        await rig.ask(seed=seed)
        return rig.shown_to("reader").partition("[workspace")[2][11:14]

    assert await kept(1) == await kept(1)
    assert len({await kept(seed) for seed in range(8)}) > 1


async def test_one_draft_a_round_is_sequential_refinement() -> None:
    rig = Rig("pdr", {"a": ["1", "2", "3"], "reader": "4"}, mode_options={"drafts": 1, "rounds": 3})

    assert await rig.ask() == "4"
    assert rig.workers.called() == ["a", "a", "a", "reader"]
    assert "]\n2\n[end" in rig.shown_to("a", 2)


async def test_sequential_and_total_tokens_are_told_apart() -> None:
    script = {name: Says(text, usage=Usage(10, 100)) for name, text in zip("abc", "123", strict=True)}
    rig = Rig("pdr", {**script, "reader": Says("2", usage=Usage(10, 20))})
    await rig.ask()

    assert rig.trace.sequential_tokens == 100 + 20 + 20
    assert rig.trace.usage.completion_tokens == 300 + 20 + 20


async def test_a_distiller_that_fails_leaves_the_drafts_cut_to_size() -> None:
    rig = Rig("pdr", {"a": "1", "b": "2", "c": "3", "reader": [Fails(ExpertUnreachable("gone")), "2"]})

    assert await rig.ask() == "2"
    assert "]\n1\n\n2\n\n3\n[end" in rig.shown_to("reader")
    assert "reader distilled nothing, so the drafts were cut" in str(rig.trace.aggregator_reason)


async def test_drafts_that_agree_need_no_refining() -> None:
    rig = Rig("pdr", {"a": "2", "b": "2", "c": "2"})

    assert await rig.ask() == "2"
    assert rig.trace.aggregator == "pdr"
