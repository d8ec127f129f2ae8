"""The adapter around estimators: who is selected, what is told, what is refused, and what it learns."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from domain.access import EVERYTHING
from domain.adjustments import RoutingAdjustments
from domain.deadline import Deadline
from domain.errors import InvalidRequest, NoEligibleExpert, NotReady
from domain.keys import ApiKey, Role
from domain.outcomes import OutcomeTable, floats
from domain.routing import PickRule
from domain.strategy import Strategy
from orchestrator.feedback.ports import OnlineLearner
from routers.learned.base import Features, Floats, ScoreModel
from routers.learned_router import Fitted, expected_scores
from tests.fakes.learned import MemorySource, NearestMean, NearestMeanModel, World, outcome_table
from tests.fakes.routing import card, query, snapshot_of

SNAPSHOT = snapshot_of([card(expert_id) for expert_id in ("calculator", "atlas", "mirror", "newcomer")], {})
SUM, CAPITAL = "What is 40 plus 2?", "Name the capital of Kenya."


async def test_the_expert_that_scored_on_the_nearest_questions_is_selected() -> None:
    router = await World(SNAPSHOT).fitted()

    assert (await router.route(query(SNAPSHOT, SUM), SNAPSHOT)).selected == ("calculator",)
    assert (await router.route(query(SNAPSHOT, CAPITAL), SNAPSHOT)).selected == ("atlas",)


async def test_the_decision_tells_the_model_the_estimators_reasons_and_what_the_query_needs() -> None:
    router = await World(SNAPSHOT).fitted()
    decision = await router.route(query(SNAPSHOT, SUM), SNAPSHOT)
    why = {expert.expert_id: expert.why for expert in decision.considered}

    assert decision.detail["nearest"]
    assert decision.detail["model"]["questions"] == 16
    assert decision.skills[0].skill == "addition"
    assert decision.category == "maths"
    assert why["calculator"] == "expected score 1.00; overall 0.50 of 16"
    assert "calculator is best at that" in decision.reason


async def test_an_expert_that_was_never_measured_stands_behind_everybody_and_it_is_said() -> None:
    router = await World(SNAPSHOT).fitted()
    decision = await router.route(query(SNAPSHOT, SUM, pick=PickRule("top_k", 4)), SNAPSHOT)

    assert decision.selected[0] == "calculator"
    newcomer = next(expert for expert in decision.considered if expert.expert_id == "newcomer")
    assert newcomer.score <= min(expert.score for expert in decision.considered)
    assert newcomer.why.startswith("never measured")


def test_the_pools_prior_is_a_twentieth_of_its_mean_and_at_most_half_of_the_least_measured() -> None:
    model = NearestMeanModel(("a", "b"), np.eye(2), np.array([[0.8, 0.02], [0.8, 0.02]]), 2)
    fitted = Fitted(model, {"a": 0, "b": 1}, {"a": 2, "b": 2}, {"a": 0.8, "b": 0.02}, 0.6, 2)
    features = Features(("x",), np.eye(2)[:1])

    assert expected_scores(fitted, features, ["a", "new"]) == [pytest.approx(0.8), pytest.approx(0.03)]
    assert expected_scores(fitted, features, ["b", "new"])[1] == pytest.approx(0.01)
    assert expected_scores(fitted, features, ["new", "newer"]) == [pytest.approx(0.03)] * 2


async def test_a_fragment_is_read_with_the_turns_that_it_leans_on() -> None:
    router = await World(SNAPSHOT).fitted()
    decision = await router.route(query(SNAPSHOT, CAPITAL, "and of Chad?"), SNAPSHOT)

    assert decision.selected == ("atlas",)
    assert decision.detail["with_context"] is True


async def test_scores_are_adjusted_before_the_pick() -> None:
    router = await World(SNAPSHOT).fitted()
    asked = replace(query(SNAPSHOT, SUM), adjustments=RoutingAdjustments(boost={"calculator": -0.9, "mirror": 0.3}))
    decision = await router.route(asked, SNAPSHOT)

    assert decision.selected == ("mirror",)
    assert decision.considered[0].why.startswith("0.00, +0.30 boost: expected score 0.00")


# --- what cannot be routed ----------------------------------------------------------------------------------------------


async def test_without_outcomes_it_says_how_to_measure() -> None:
    empty = OutcomeTable((), ("calculator",), floats(()))
    router = await World(SNAPSHOT, MemorySource(empty)).fitted()

    with pytest.raises(NotReady, match="nothing was measured yet; measure experts with `consilium profile run`"):
        await router.route(query(SNAPSHOT, SUM), SNAPSHOT)


async def test_what_the_estimator_lacks_is_passed_on() -> None:
    router = await World(SNAPSHOT).fitted(options={"k": 99})

    with pytest.raises(NotReady, match=r"16 questions are too few for k = 99; measure experts"):
        await router.route(query(SNAPSHOT, SUM, access=EVERYTHING, k=99), SNAPSHOT)


async def test_options_that_no_strategy_has_are_fitted_only_for_who_may_write_strategies() -> None:
    inside = Strategy("inside", router="budget", router_options={"base": "nearest-mean", "base_options": {"k": 3}})
    strategies = {
        "on": Strategy("on", router="nearest-mean", router_options={"k": 2}),
        "off": Strategy("off", router="nearest-mean", router_options={"k": 4}, enabled=False),
        "inside": inside,
    }
    world = World(replace(SNAPSHOT, strategies=strategies))
    router = await world.router()
    for k in (2, 3, 4, 5):
        await world.fitted(options={"k": k})
    await world.fitted()
    own = ApiKey("team", role=Role.EDITOR).rights

    async def selected(**asked: Any) -> tuple[str, ...]:
        return (await router.route(query(world.snapshot, SUM, **asked), world.snapshot)).selected

    for asked in ({"k": 2, "floor": -1}, {"k": 3}, {"floor": -1}, {}, {"k": 4, "access": EVERYTHING}, {"k": 5, "access": own}):
        assert await selected(**asked) == ("calculator",)
    for asked in ({"k": 4}, {"k": 5}, {"k": 5, "access": ApiKey("reader", role=Role.VIEWER).rights}):
        with pytest.raises(InvalidRequest, match=r"'nearest-mean' \(k\) make a model of their own.*write them into a strategy") as refused:
            await selected(**asked)
        assert refused.value.param == "consilium.router_options"


async def test_a_model_that_is_not_there_in_time_is_said_to_be_on_its_way() -> None:
    router = await World(SNAPSHOT).router()
    asked = replace(query(SNAPSHOT, SUM), deadline=Deadline.after(0.05))

    with pytest.raises(NotReady, match="is being fitted"):
        await router.route(asked, SNAPSHOT)


async def test_a_first_request_waits_for_its_model_within_its_time() -> None:
    world = World(SNAPSHOT)
    router = await world.router()
    keeping = asyncio.create_task(world.keeper.keep())
    try:
        decision = await router.route(replace(query(SNAPSHOT, SUM), deadline=Deadline.after(60.0)), SNAPSHOT)
    finally:
        keeping.cancel()

    assert decision.selected == ("calculator",)


@pytest.mark.parametrize(
    ("options", "param", "says"),
    [
        ({"kk": 3}, "router_options.kk", "did you mean 'k'"),
        ({"floor": "low"}, "router_options.floor", "between -1 and 1"),
        ({"k": 3, "seed": 1}, "router_options.seed", "is no option of the router 'nearest-mean'"),
    ],
)
async def test_unknown_options_name_the_nearest(options: Mapping[str, Any], param: str, says: str) -> None:
    router = await World(SNAPSHOT).router()
    with pytest.raises(InvalidRequest) as refused:
        router.check_options(options)

    assert refused.value.param == param
    assert says in refused.value.message


async def test_a_query_below_the_floor_goes_to_the_fallback_or_is_refused_only_where_a_floor_is_set() -> None:
    router = await World(SNAPSHOT).fitted()
    strange = "zyx wvut qrs"

    without = await router.route(query(SNAPSHOT, strange), SNAPSHOT)
    fallen = await router.route(query(SNAPSHOT, strange, floor=0.9, fallback="mirror"), SNAPSHOT)

    assert not without.fallback
    assert (fallen.selected, fallen.fallback, fallen.others_fit) == (("mirror",), True, False)
    with pytest.raises(NoEligibleExpert, match=r"needed 0\.90"):
        await router.route(query(SNAPSHOT, strange, floor=0.9), SNAPSHOT)


async def test_a_query_without_text_is_refused() -> None:
    router = await World(SNAPSHOT).fitted()
    with pytest.raises(InvalidRequest, match="no text to route by"):
        await router.route(query(SNAPSHOT, " "), SNAPSHOT)


# --- learning -----------------------------------------------------------------------------------------------------------


async def test_it_learns_from_an_answer_and_a_query_in_flight_keeps_its_model() -> None:
    world = World(SNAPSHOT)
    router = await world.fitted()
    key, _ = router.model_for({})
    before = world.keeper.held(key)
    vector = world.encoder.encode_now([SUM])[0]

    learnt = await router.learn(vector, {"calculator": 0.0, "atlas": 1.0, "stranger": 1.0})

    assert learnt
    assert (await router.route(query(SNAPSHOT, SUM), SNAPSHOT)).selected == ("atlas",)
    assert before is not None
    assert len(before.model.scores.vectors) == 16
    assert (await router.route(query(SNAPSHOT, CAPITAL), SNAPSHOT)).selected == ("atlas",)


async def test_a_decision_carries_what_it_is_taught_with() -> None:
    """Without it, feedback on the answers of the very routers that learn would teach none of them."""
    world = World(SNAPSHOT)
    router = await world.fitted()
    vector = (await router.route(query(SNAPSHOT, SUM), SNAPSHOT)).vector

    assert vector is not None
    np.testing.assert_allclose(np.frombuffer(vector, "<f2"), world.encoder.encode_now([SUM])[0], atol=1e-3)


async def test_two_answers_at_once_are_both_learnt() -> None:
    world = World(SNAPSHOT)
    router = await world.fitted()
    vectors = world.encoder.encode_now([SUM, CAPITAL])
    await asyncio.gather(
        router.learn(vectors[0], {"calculator": 0.0, "mirror": 1.0}), router.learn(vectors[1], {"atlas": 0.0, "mirror": 1.0})
    )

    assert (await router.route(query(SNAPSHOT, SUM), SNAPSHOT)).selected == ("mirror",)
    assert (await router.route(query(SNAPSHOT, CAPITAL), SNAPSHOT)).selected == ("mirror",)


async def test_it_is_taught_by_the_feedback_service() -> None:
    """By what its port asks for: no list says which routers learn."""
    assert isinstance(await World(SNAPSHOT).router(), OnlineLearner)


async def test_what_was_learnt_is_forgotten_by_a_reset_and_by_every_fit_which_is_counted() -> None:
    """Also by models of the same router that were not fitted anew: who teaches begins again with all of them."""
    world = World(SNAPSHOT)
    router = await world.fitted()
    vector = world.encoder.encode_now([SUM])[0]
    once = router.fitted
    await router.learn(vector.tolist(), {"calculator": 0.0, "atlas": 1.0})
    learnt = (await router.route(query(SNAPSHOT, SUM), SNAPSHOT)).selected
    await router.reset()
    after_reset = (await router.route(query(SNAPSHOT, SUM), SNAPSHOT)).selected
    await router.learn(vector, {"calculator": 0.0, "atlas": 1.0})
    await world.fitted(options={"k": 2})
    twice = router.fitted
    await router.learn(world.encoder.encode_now([CAPITAL])[0], {"atlas": 0.5})

    assert (learnt, after_reset) == (("atlas",), ("calculator",))
    assert (await router.route(query(SNAPSHOT, SUM), SNAPSHOT)).selected == ("calculator",)
    assert (once, twice) == (1, 2)


class Unteachable(NearestMean):
    def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> ScoreModel:
        class Frozen:
            expert_ids = table.expert_ids

            def predict(self, features: Features) -> Floats:
                return np.full((len(features), len(table.expert_ids)), 0.5)

            def explain(self, features: Features, row: int) -> Mapping[str, Any]:
                return {}

        return Frozen()


async def test_what_cannot_learn_says_so() -> None:
    world = World(SNAPSHOT)
    await world.router("frozen", Unteachable.with_options)
    router = await world.fitted("frozen")
    vector = world.encoder.encode_now([SUM])[0]
    teachable = await world.fitted()

    assert await router.learn(vector, {"atlas": 1.0}) is False
    assert await teachable.learn(vector, {"newcomer": 1.0}) is False
    assert await (await World(SNAPSHOT).router()).learn(vector, {"atlas": 1.0}) is False


# --- following the registry ---------------------------------------------------------------------------------------------


async def test_changed_outcomes_replace_the_model_as_a_whole() -> None:
    world = World(SNAPSHOT)
    router = await world.fitted()
    swapped = outcome_table(("atlas", "calculator", "mirror"))
    world.source.change(replace(swapped, expert_ids=("calculator", "atlas", "mirror")))
    await world.keeper.refresh()

    assert (await router.route(query(SNAPSHOT, SUM), SNAPSHOT)).selected == ("atlas",)


async def test_nothing_is_read_again_when_nothing_that_counts_has_changed() -> None:
    world = World(SNAPSHOT)
    await world.fitted()
    world.snapshot = replace(SNAPSHOT, version=2, strategies={"s": Strategy("s")})
    await world.keeper.refresh()

    assert world.source.num_reads == 1


async def test_an_expert_that_is_removed_is_no_column_any_more() -> None:
    world = World(SNAPSHOT)
    router = await world.fitted()
    fewer = snapshot_of([card("atlas"), card("mirror")], {}, version=2)
    world.snapshot = fewer
    await world.keeper.refresh()
    key, _ = router.model_for({})
    held = world.keeper.held(key)

    assert held is not None
    assert held.model.scores.expert_ids == ("atlas", "mirror")
    assert (await router.route(query(fewer, SUM), fewer)).selected


async def test_what_cannot_be_fitted_any_more_leaves_the_old_model_in_use() -> None:
    world = World(SNAPSHOT)
    router = await world.fitted()
    world.source.change(world.source.table.rows([0]))
    await world.keeper.refresh()

    assert (await router.route(query(SNAPSHOT, SUM), SNAPSHOT)).selected == ("calculator",)


async def test_the_models_of_enabled_strategies_are_made_before_anybody_asks() -> None:
    strategies = {
        "on": Strategy("on", router="nearest-mean", router_options={"k": 2}),
        "off": Strategy("off", router="nearest-mean", router_options={"k": 4}, enabled=False),
        "inside": Strategy("inside", router="budget", router_options={"base": "nearest-mean", "base_options": {"k": 5}}),
        "broken": Strategy("broken", router="nearest-mean", router_options={"kk": 1}),
        "skills": Strategy("skills"),
    }
    world = World(replace(SNAPSHOT, strategies=strategies))
    router = await world.router()
    await world.keeper.refresh()

    assert [world.keeper.held(router.model_for({"k": k})[0]) is not None for k in (2, 4, 5)] == [True, False, True]


async def test_no_more_models_are_held_than_there_is_room_for_and_those_of_strategies_stay() -> None:
    strategies = {"on": Strategy("on", router="nearest-mean", router_options={"k": 2})}
    world = World(replace(SNAPSHOT, strategies=strategies), max_models=3)
    router = await world.router()
    await world.keeper.refresh()
    for k in (3, 4, 5, 6):
        await world.fitted(options={"k": k})

    assert [k for k in (2, 3, 4, 5, 6) if world.keeper.held(router.model_for({"k": k})[0])] == [2, 5, 6]


async def test_stored_vectors_are_used_and_new_ones_stored() -> None:
    world = World(SNAPSHOT)
    await world.router()
    table = world.source.table
    vectors = world.encoder.encode_now(table.questions)
    world.source.stored = {i: vector.astype("<f4").tobytes() for i, vector in zip(table.question_ids[1:], vectors[1:], strict=True)}
    world.encoder.batches.clear()
    router = await world.fitted()

    assert world.encoder.batches == [(table.questions[0],)]
    assert set(world.source.stored) == set(table.question_ids)
    assert (await router.route(query(SNAPSHOT, SUM), SNAPSHOT)).selected == ("calculator",)


async def test_the_keeper_goes_on_after_a_database_that_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    from domain.errors import StorageError
    from routers import model_keeper

    monkeypatch.setattr(model_keeper, "RETRY_S", 0.01)
    world = World(SNAPSHOT)
    router = await world.router()
    world.source.error = StorageError("the disk is full")
    keeping = asyncio.create_task(world.keeper.keep())
    try:
        with pytest.raises(NotReady):
            await router.route(replace(query(SNAPSHOT, SUM), deadline=Deadline.after(0.1)), SNAPSHOT)
        world.source.error = None
        decision = await router.route(replace(query(SNAPSHOT, SUM), deadline=Deadline.after(60.0)), SNAPSHOT)
    finally:
        keeping.cancel()

    assert decision.selected == ("calculator",)
