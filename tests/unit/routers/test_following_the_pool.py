"""Models follow experts that come and go at once, where their algorithm can; the fit comes when it is its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from domain.access import EVERYTHING
from domain.errors import StorageError
from domain.outcomes import NOT_MEASURED, OutcomeTable, floats
from domain.registry import RegistrySnapshot
from routers.learned.base import Features, Floats, score_matrix
from routers.learned.category import CategoryRouter
from routers.learned.category_report import card_options
from routers.learned.ridge import RidgeRouter
from routers.learned_router import Fitted, LearnedRouter
from routers.training_data import PoolChange, columns_of_table
from tests.fakes.learned import GOOD, MemorySource, NearestMean, World, outcome_table, unmeasured
from tests.fakes.routing import card, query, snapshot_of

EXPERTS = ("calculator", "atlas", "mirror")
SUM, REVERSED = "What is 40 plus 2?", "Write the word table backwards."
ALL = (*EXPERTS, "polymath")


def snapshot(*experts: str, version: int = 1, **changes: Any) -> RegistrySnapshot:
    return snapshot_of([card(expert_id, **changes) for expert_id in experts], {}, version=version)


@pytest.fixture(autouse=True)
def _a_polymath(monkeypatch: pytest.MonkeyPatch) -> None:
    """Knows everything that its table has."""
    monkeypatch.setitem(GOOD, "polymath", ("addition", "multiplication", "capitals", "reversing"))


async def ridge_world(**keeper: Any) -> tuple[World, LearnedRouter]:
    world = World(snapshot(*EXPERTS), MemorySource(outcome_table(EXPERTS)), **keeper)
    await world.router("ridge", RidgeRouter.with_options)
    return world, await world.fitted("ridge", {"penalty": 1.0})


def model_of(world: World, router: LearnedRouter, **options: Any) -> Fitted:
    held = world.keeper.held(router.model_for(options or {"penalty": 1.0})[0])
    assert held is not None
    model: Fitted = held.model
    return model


def predicted(world: World, model: Fitted, *experts: str) -> Floats:
    features = Features((SUM, REVERSED), world.encoder.encode_now([SUM, REVERSED]))
    return model.scores.predict(features)[:, [model.place[expert_id] for expert_id in experts]]


async def test_an_expert_that_was_measured_is_routed_to_at_once_and_the_others_stay_as_they_are() -> None:
    world, router = await ridge_world()
    before, num_fits = model_of(world, router), router.fitted
    world.snapshot = snapshot(*ALL, version=2)
    world.source.change(outcome_table(ALL))
    await world.keeper.adapt()
    after = model_of(world, router)
    decision = await router.route(query(world.snapshot, SUM, access=EVERYTHING, penalty=1.0), world.snapshot)

    assert router.fitted == num_fits, "nothing was fitted"
    assert after.scores.expert_ids == ALL
    np.testing.assert_array_equal(predicted(world, after, *EXPERTS), predicted(world, before, *EXPERTS))
    assert next(scored for scored in decision.considered if scored.expert_id == "polymath").score > 0.5
    assert (after.num_answered["polymath"], after.mean_score["polymath"]) == (16, 1.0)
    await world.keeper.refresh()
    assert router.fitted == num_fits + 1, "the fit comes all the same"


async def test_an_expert_that_went_is_no_column_any_more_and_the_others_stay() -> None:
    world, router = await ridge_world()
    before = model_of(world, router)
    world.snapshot = snapshot("calculator", "mirror", version=2)
    await world.keeper.adapt()
    after = model_of(world, router)

    assert after.scores.expert_ids == ("calculator", "mirror")
    np.testing.assert_array_equal(predicted(world, after, *after.place), predicted(world, before, *after.place))


async def test_an_expert_that_was_measured_anew_replaces_what_was_known_of_it() -> None:
    world, router = await ridge_world()
    before = model_of(world, router)
    world.source.change(unmeasured(outcome_table(EXPERTS), "addition-0", "calculator"))
    await world.keeper.adapt()
    after = model_of(world, router)

    assert after.num_answered["calculator"] == 15
    np.testing.assert_array_equal(predicted(world, after, "atlas", "mirror"), predicted(world, before, "atlas", "mirror"))
    assert (predicted(world, after, "calculator") != predicted(world, before, "calculator")).any()


async def test_when_everything_has_changed_it_waits_for_the_fit() -> None:
    world, router = await ridge_world()
    before = model_of(world, router)
    world.source.change(outcome_table(EXPERTS).rows(range(8)))
    await world.keeper.adapt()

    assert model_of(world, router) is before


async def test_an_expert_that_nobody_has_measured_makes_no_fit() -> None:
    world, router = await ridge_world()
    before, num_fits = model_of(world, router), router.fitted
    world.snapshot = snapshot(*ALL, version=2)
    await world.keeper.refresh()

    assert model_of(world, router) is before
    assert router.fitted == num_fits


async def test_what_was_learnt_of_the_others_stays_and_a_reset_leaves_the_newcomer() -> None:
    world, router = await ridge_world()
    for _ in range(20):
        await router.learn(world.encoder.encode_now([SUM])[0], {"atlas": 1.0, "calculator": 0.0})
    learnt = model_of(world, router)
    world.snapshot = snapshot(*ALL, version=2)
    world.source.change(outcome_table(ALL))
    await world.keeper.adapt()
    after = model_of(world, router)
    await router.reset()
    restored = model_of(world, router)

    np.testing.assert_array_equal(predicted(world, after, *EXPERTS), predicted(world, learnt, *EXPERTS))
    assert restored.scores.expert_ids == ALL
    assert predicted(world, restored, "calculator")[0, 0] > predicted(world, after, "calculator")[0, 0]


class Held(RidgeRouter):
    """Fits when it may."""

    def __init__(self, gate: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._gate, self._loop = gate, loop
        self.num_begun = 0

    def fit(self, features: Features, table: OutcomeTable, *, seed: int) -> Any:
        self.num_begun += 1
        asyncio.run_coroutine_threadsafe(self._gate.wait(), self._loop).result(60)
        return super().fit(features, table, seed=seed)


async def test_an_expert_that_comes_during_a_fit_is_taken_up_by_the_model_in_use_and_by_the_new_one() -> None:
    gate = asyncio.Event()
    gate.set()
    estimator = Held(gate, asyncio.get_running_loop())
    world = World(snapshot(*EXPERTS), MemorySource(outcome_table(EXPERTS)))
    router = await world.router("ridge", lambda _: estimator)
    await world.fitted("ridge")
    gate.clear()
    world.source.change(unmeasured(outcome_table(EXPERTS), "addition-0", "calculator"))
    fitting = asyncio.create_task(world.keeper.refresh())
    async with asyncio.timeout(60):
        while estimator.num_begun < 2:
            await asyncio.sleep(0)
    world.snapshot = snapshot(*ALL, version=2)
    world.source.change(unmeasured(outcome_table(ALL), "addition-0", "calculator"))
    await world.keeper.adapt()
    key, _ = router.model_for({})
    during = world.keeper.held(key)
    gate.set()
    await fitting
    after = world.keeper.held(key)

    assert during is not None
    assert after is not None
    assert set(during.model.place) == set(after.model.place) == set(ALL)
    assert router.fitted == 2


async def test_while_it_follows_the_registry_a_newcomer_does_not_wait_for_the_pause_between_fits() -> None:
    world = World(snapshot(*EXPERTS), MemorySource(outcome_table(EXPERTS)), min_pause_s=3600.0)
    router = await world.router("ridge", RidgeRouter.with_options)
    key, recipe = router.model_for({})
    world.keeper._want(key, recipe)
    keeping = asyncio.create_task(world.keeper.keep())
    try:
        async with asyncio.timeout(60):
            while world.keeper.held(key) is None:
                await asyncio.sleep(0)
            world.snapshot = snapshot(*ALL, version=2)
            world.source.change(outcome_table(ALL))
            world.keeper.changed()
            while "polymath" not in world.keeper.held(key).model.place:  # type: ignore[union-attr]
                await asyncio.sleep(0)
    finally:
        keeping.cancel()

    assert router.fitted == 1


async def test_an_expert_that_comes_during_the_first_fit_does_not_wait_for_the_second() -> None:
    gate = asyncio.Event()
    estimator = Held(gate, asyncio.get_running_loop())
    world = World(snapshot(*EXPERTS), MemorySource(outcome_table(EXPERTS)), min_pause_s=3600.0)
    router = await world.router("ridge", lambda _: estimator)
    key, recipe = router.model_for({})
    world.keeper._want(key, recipe)
    keeping = asyncio.create_task(world.keeper.keep())
    try:
        async with asyncio.timeout(60):
            while not estimator.num_begun:
                await asyncio.sleep(0)
            num_reads = world.source.num_reads
            world.snapshot = snapshot(*ALL, version=2)
            world.source.change(outcome_table(ALL))
            await world.keeper.adapt()
            world.keeper.changed()
            gate.set()
            while (held := world.keeper.held(key)) is None or "polymath" not in held.model.place:
                await asyncio.sleep(0)
    finally:
        keeping.cancel()

    assert router.fitted == 1
    assert world.source.num_reads > num_reads


async def test_a_map_under_a_budget_takes_up_the_newcomer_with_its_size() -> None:
    """And is solved anew: the newcomer does everything, within the budget of one."""
    world = World(snapshot(*EXPERTS, parameters_b=1.0), MemorySource(outcome_table(EXPERTS)))
    router = await world.router("category", CategoryRouter.with_options)
    router._from_cards = card_options
    options: Mapping[str, Any] = {"budget_b": 1.0, "classifier": "knn"}
    await world.fitted("category", options)
    num_fits = router.fitted
    world.snapshot = snapshot(*ALL, version=2, parameters_b=1.0)
    world.source.change(outcome_table(ALL))
    await world.keeper.adapt()

    assert router.fitted == num_fits
    assert model_of(world, router, **options).scores.map.kept == ("polymath",)  # type: ignore[attr-defined]


async def test_what_cannot_follow_stays_until_its_fit() -> None:
    world = World(snapshot(*EXPERTS), MemorySource(outcome_table(EXPERTS)))
    router = await world.fitted()
    before = world.keeper.held(router.model_for({})[0])
    world.snapshot = snapshot(*ALL, version=2)
    world.source.change(outcome_table(ALL))
    await world.keeper.adapt()

    assert world.keeper.held(router.model_for({})[0]) is before
    assert not hasattr(NearestMean, "with_expert")


async def test_a_database_that_is_away_leaves_the_models_that_are_there() -> None:
    world, router = await ridge_world()
    before = model_of(world, router)
    world.source.error = StorageError("gone")
    with pytest.raises(StorageError):
        await world.keeper.adapt()

    assert model_of(world, router) is before


def test_experts_are_told_apart_by_what_was_measured_of_them() -> None:
    table = outcome_table(EXPERTS)
    before = columns_of_table(table)
    fewer = unmeasured(table, "addition-0", "calculator")
    asked_otherwise = replace(table, questions=("What?", *table.questions[1:]))
    half = floats(table.scores)
    half[1::3] = floats([NOT_MEASURED] * len(table))

    assert PoolChange.between(before, columns_of_table(fewer)) == PoolChange(came=("calculator",))
    assert PoolChange.between(before, columns_of_table(asked_otherwise)).came == tuple(sorted(EXPERTS))
    assert PoolChange.between(before, columns_of_table(replace(table, scores=half))).came == ("atlas",)
    assert PoolChange.between(before, {name: before[name] for name in ("atlas", "mirror")}) == PoolChange(gone=("calculator",))
    assert not PoolChange.between(before, columns_of_table(table.rows(range(len(table)))))
    assert score_matrix(table).shape == (16, 3)
