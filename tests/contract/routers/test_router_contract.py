"""What every router promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from domain.registry import RegistrySnapshot
from domain.routing import PickRule, RoutingQuery
from orchestrator.ports import Router
from routers.adjust import UNSCORED
from routers.annotators import EmbeddingAnnotator
from routers.budget_router import BudgetRouter
from routers.cascade_router import CascadeRouter
from routers.catalogue import RouterCatalogue
from routers.explicit import ExplicitRouter
from routers.fixed import FixedRouter
from routers.instruction_router import InstructionRouter
from routers.learned.catalogue import ESTIMATORS
from routers.menu_annotator import MenuAnnotator
from routers.options import SkillsOptions
from routers.random_router import RandomRouter
from routers.skills_router import SkillsRouter
from tests.fakes.encoder import HashingEncoder
from tests.fakes.learned import World
from tests.fakes.routing import holder_for, query, skills_router, snapshot_of
from tests.fakes.workers import ScriptedWorkers

SNAPSHOT = snapshot_of()


async def _skills(snapshot: RegistrySnapshot) -> Router:
    return await skills_router(snapshot)


async def _explicit(_: RegistrySnapshot) -> Router:
    return ExplicitRouter()


async def _random(_: RegistrySnapshot) -> Router:
    return RandomRouter()


async def _cascade(snapshot: RegistrySnapshot) -> Router:
    return CascadeRouter(RouterCatalogue([await skills_router(snapshot)]))


async def _fixed(_: RegistrySnapshot) -> Router:
    return FixedRouter()


async def _menu(snapshot: RegistrySnapshot) -> Router:
    encoder = HashingEncoder()
    workers = ScriptedWorkers({"generalist": "A1"})
    annotators = {"menu": MenuAnnotator(workers, encoder, EmbeddingAnnotator(encoder))}
    return SkillsRouter(await holder_for(snapshot, encoder), annotators, name="menu", defaults=SkillsOptions(annotator="menu"))


async def _instruction(snapshot: RegistrySnapshot) -> Router:
    world = World(snapshot)
    router = InstructionRouter(
        ScriptedWorkers({"generalist": "Add two numbers"}),
        world.keeper,
        index_holder=await holder_for(snapshot, world.encoder),
        annotator=EmbeddingAnnotator(world.encoder),
        encoder=world.encoder,
    )
    world.keeper._want(*router.model_for({"instruction_expert": "generalist"}))
    await world.keeper.refresh()
    return router


class _NoCosts:
    """Everybody answers at once and is loaded."""

    def latency_ms(self, expert_id: str) -> float | None:
        return 1.0

    def to_load(self) -> Mapping[str, tuple[str, float]]:
        return {}


async def _budget(snapshot: RegistrySnapshot) -> Router:
    routers = RouterCatalogue([await skills_router(snapshot)])
    return BudgetRouter(routers, _NoCosts())


async def _learned(snapshot: RegistrySnapshot) -> Router:
    return await World(snapshot).fitted()


def _fitted(name: str) -> Callable[[RegistrySnapshot], Awaitable[Router]]:
    async def build(snapshot: RegistrySnapshot) -> Router:
        world = World(snapshot)
        await world.router(name, ESTIMATORS[name])
        return await world.fitted(name)

    return build


SERVED = tuple(name for name in ESTIMATORS if name not in UNSCORED)


# Name, how to build it, and what a query for it has to say.
ROUTERS: tuple[tuple[str, Callable[[RegistrySnapshot], Awaitable[Router]], Mapping[str, Any]], ...] = (
    ("skills", _skills, {}),
    ("skills", _skills, {"scoring": "symbolic"}),
    ("explicit", _explicit, {"experts": ["atlas"]}),
    ("random", _random, {}),
    ("cascade", _cascade, {}),
    ("cascade", _cascade, {"experts": ["atlas", "generalist"]}),
    ("fixed", _fixed, {"experts": ["mirror", "atlas", "generalist"]}),
    ("menu", _menu, {"menu_expert": "generalist"}),
    ("instruction", _instruction, {"instruction_expert": "generalist"}),
    ("budget", _budget, {"max_price": 1.0, "max_latency_ms": 10.0, "max_memory_mb": 10.0}),
    ("nearest-mean", _learned, {}),
    *((name, _fitted(name), {}) for name in SERVED),
)
IDS = ("skills-shrunk", "skills-symbolic", "explicit", "random", "cascade", "cascade-named", "fixed", "menu", "instruction", "budget")
PICKS = (PickRule("top_k", 2), PickRule("sample", 3), PickRule("dynamic", 3))


@pytest.fixture(params=ROUTERS, ids=[*IDS, "learned", *SERVED])
async def routing(request: pytest.FixtureRequest) -> tuple[str, Router, Callable[..., RoutingQuery]]:
    name, build, options = request.param

    def ask(*texts: str, **fields: Any) -> RoutingQuery:
        return query(SNAPSHOT, *texts, **fields, **options)

    return name, await build(SNAPSHOT), ask


Routing = tuple[str, Router, Callable[..., RoutingQuery]]


async def test_it_says_its_name(routing: Routing) -> None:
    name, router, ask = routing
    decision = await router.route(ask("What is 40 plus 2?"), SNAPSHOT)

    assert router.name == name
    assert decision.router == name
    assert decision.reason


@pytest.mark.parametrize("pick", PICKS, ids=lambda rule: rule.kind)
async def test_it_selects_at_least_one_of_the_querys_experts_and_no_other(routing: Routing, pick: PickRule) -> None:
    _, router, ask = routing
    for only in (None, ["atlas", "generalist"], ["atlas"]):
        asked = ask("What is 40 plus 2?", pick=pick, only=only)
        decision = await router.route(asked, SNAPSHOT)

        assert decision.selected
        assert set(decision.selected) <= {card.id for card in asked.experts}


@pytest.mark.parametrize("pick", PICKS, ids=lambda rule: rule.kind)
async def test_the_same_seed_gives_the_same_decision(routing: Routing, pick: PickRule) -> None:
    _, router, ask = routing
    first, second = [await router.route(ask("What is 40 plus 2?", pick=pick, seed=11), SNAPSHOT) for _ in range(2)]

    assert first == second


async def test_every_expert_is_considered_once_best_first_with_a_score_in_range(routing: Routing) -> None:
    _, router, ask = routing
    asked = ask("What is 40 plus 2?")
    decision = await router.route(asked, SNAPSHOT)
    scores = [scored.score for scored in decision.considered]

    assert sorted(scored.expert_id for scored in decision.considered) == sorted(card.id for card in asked.experts)
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


async def test_what_is_marked_as_selected_is_what_is_selected_and_everybody_has_a_reason(routing: Routing) -> None:
    _, router, ask = routing
    decision = await router.route(ask("What is 40 plus 2?", pick=PickRule("top_k", 2)), SNAPSHOT)

    assert {scored.expert_id for scored in decision.considered if scored.selected} == set(decision.selected)
    assert all(scored.why for scored in decision.considered)


async def test_a_single_expert_is_selected(routing: Routing) -> None:
    _, router, ask = routing
    decision = await router.route(ask("What is 40 plus 2?", only=["atlas"]), SNAPSHOT)

    assert decision.selected == ("atlas",)
