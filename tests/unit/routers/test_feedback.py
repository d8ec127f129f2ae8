"""What users said, beside what was measured."""

from __future__ import annotations

import numpy as np
import pytest

from domain.errors import InvalidRequest
from domain.feedback import ExpertFeedback, FeedbackView, Tally
from domain.routing import PickRule, RoutingDecision
from routers.annotators import EmbeddingAnnotator
from routers.feedback import STALE_ANSWERS, retried, told, with_feedback
from routers.score_table import ScoreTable
from routers.skills_router import SkillsRouter
from tests.fakes.encoder import HashingEncoder
from tests.fakes.routing import holder_for, query, snapshot_of

SNAPSHOT = snapshot_of()


def said(expert_id: str, num: float, right: float, *, drifted: bool = False, skill: str = "addition") -> FeedbackView:
    tally = Tally(num, right)
    usual = 0.9 if drifted else None
    return FeedbackView(
        1, {expert_id: ExpertFeedback(expert_id, tally, {skill: tally}, num_feedback=int(num), drifted=drifted, usual=usual)}
    )


async def router(view: FeedbackView) -> SkillsRouter:
    encoder = HashingEncoder()
    return SkillsRouter(await holder_for(SNAPSHOT, encoder), {"embedding": EmbeddingAnnotator(encoder)}, feedback=lambda: view)


async def routed(view: FeedbackView, *, seed: int = 0, **options: float) -> RoutingDecision:
    return await (await router(view)).route(
        query(SNAPSHOT, "What is 40 plus 2?", pick=PickRule("top_k", 1), seed=seed, **options), SNAPSHOT
    )


async def counts_of(view: FeedbackView, *, weight: float = 1.0):  # type: ignore[no-untyped-def]
    index = (await holder_for(SNAPSHOT, HashingEncoder())).index()
    counts = ScoreTable.build(SNAPSHOT, index).counts(["calculator", "atlas"], ["addition"])
    return counts, with_feedback(counts, ["calculator", "atlas"], ["addition"], view, weight=weight)


async def test_feedback_adds_to_the_counts_by_its_weight() -> None:
    measured, both = await counts_of(said("calculator", 10, 4), weight=2.0)

    assert both.num_answered[0, 0] == measured.num_answered[0, 0] + 20
    assert both.num_correct[0, 0] == measured.num_correct[0, 0] + 8
    assert both.overall_answered[0] == measured.overall_answered[0] + 20
    assert np.array_equal(both.num_answered[1], measured.num_answered[1])


async def test_without_feedback_or_weight_nothing_is_touched() -> None:
    for view, weight in ((FeedbackView(), 1.0), (said("calculator", 10, 4), 0.0), (said("nobody", 10, 4), 1.0)):
        measured, both = await counts_of(view, weight=weight)
        assert both is measured


async def test_what_was_measured_of_an_expert_that_got_worse_is_worth_a_few_answers() -> None:
    measured, both = await counts_of(said("calculator", 5, 0, drifted=True))

    assert both.num_answered[0, 0] == STALE_ANSWERS + 5
    left = (1 / 7) / 0.9
    assert both.num_correct[0, 0] == pytest.approx(left * STALE_ANSWERS * measured.num_correct[0, 0] / measured.num_answered[0, 0])
    assert both.overall_answered[0] == STALE_ANSWERS + 5


async def test_on_a_skill_that_nobody_judged_since_an_expert_that_got_worse_is_expected_to_be_as_bad() -> None:
    """By as much as it has got worse on what was judged."""
    _, all_wrong = await counts_of(said("calculator", 5, 0, drifted=True, skill="multiplication"))
    _, half_wrong = await counts_of(said("calculator", 8, 4, drifted=True, skill="multiplication"))
    measured, _ = await counts_of(FeedbackView())
    usual = measured.num_correct[0, 0] / measured.num_answered[0, 0]

    assert all_wrong.num_correct[0, 0] / all_wrong.num_answered[0, 0] == pytest.approx(usual * (1 / 7) / 0.9)
    assert half_wrong.num_correct[0, 0] / half_wrong.num_answered[0, 0] == pytest.approx(usual * (5 / 10) / 0.9)


async def test_an_expert_that_users_find_wrong_is_routed_away_from_and_the_reason_is_told() -> None:
    view = said("calculator", 6, 0, drifted=True)
    decision = await routed(view, explore=0.0)
    why = {scored.expert_id: scored.why for scored in decision.considered}

    assert (await routed(FeedbackView())).selected == ("calculator",)
    assert decision.selected == ("generalist",)
    assert "addition 0.96 of 50 measured" in why["calculator"]
    assert why["calculator"].endswith("feedback addition 0.00 of 6, worse than it used to be")
    assert (await routed(view, feedback_weight=0.0)).selected == ("calculator",)


async def test_it_is_tried_again_on_a_small_share_of_its_own_ground() -> None:
    view = said("calculator", 6, 0, drifted=True)
    decisions = [await routed(view, seed=seed, explore=0.1) for seed in range(300)]
    chosen = [decision.selected[0] for decision in decisions]

    assert set(chosen) == {"calculator", "generalist"}
    assert 10 <= chosen.count("calculator") <= 55
    decision = decisions[chosen.index("calculator")]
    assert "is tried again on 10% of such queries" in decision.reason
    assert {scored.expert_id for scored in decision.considered if scored.selected} == {"calculator"}


def test_only_who_would_be_first_by_its_measurements_is_tried_again() -> None:
    view = said("b", 6, 0, drifted=True)

    assert retried([0.9, 0.5], ["a", "b"], view, share=1.0, seed=0) is None
    assert retried([0.1, 0.5], ["a", "b"], view, share=1.0, seed=0) == "b"
    assert retried([0.1, 0.5], ["a", "b"], view, share=0.0, seed=0) is None
    assert retried([0.1, 0.5], ["a", "b"], said("b", 6, 6), share=1.0, seed=0) is None


def test_words_are_there_only_where_something_was_said() -> None:
    assert told("a", ["addition"], FeedbackView()) == ""
    assert told("a", ["units"], said("a", 4, 3)) == "feedback 0.75 of 4"


async def test_a_decision_carries_what_was_routed_for_who_learns_from_it() -> None:
    decision = await routed(FeedbackView())

    assert decision.vector is not None
    assert len(decision.vector) == 2 * HashingEncoder().dimensions
    assert np.isclose(np.linalg.norm(np.frombuffer(decision.vector, "<f2").astype(float)), 1.0, atol=1e-2)


@pytest.mark.parametrize("options", [{"explore": 1.5}, {"explore": -0.1}, {"feedback_weight": -1}, {"explore": True}])
async def test_wrong_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(options))):
        (await router(FeedbackView())).check_options(options)
