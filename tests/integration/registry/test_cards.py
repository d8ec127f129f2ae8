"""Cards, strategies and skills: stored whole, changed only by who saw the newest version."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa

from domain.adjustments import RoutingAdjustments
from domain.errors import Conflict, InvalidRequest, NotFound, PreconditionFailed
from domain.experts import Backend, Capability, ExpertCard, ExpertRole, Price, ServingOptions
from domain.routing import PickRule
from domain.strategy import Strategy
from experts_registry import state
from experts_registry.apply import apply
from experts_registry.database import Database
from experts_registry.manifest import load_manifest
from experts_registry.skills import Skill
from experts_registry.stores import Stores
from tests.fakes.registry import make_card, make_question

FULL_CARD = ExpertCard(
    id="vllm-math",
    backend=Backend.OPENAI,
    model="Org/Math-7B",
    description="Mathematics: Ω ≠ ∅ 🎲",
    base_url="http://127.0.0.1:8000/v1",
    api_key="env:MATH_KEY",
    context_length=32768,
    chars_per_token=3.5,
    capabilities=frozenset({Capability.TOOLS, Capability.JSON_SCHEMA}),
    roles=frozenset({ExpertRole.CANDIDATE, ExpertRole.AGGREGATOR}),
    skills=("number theory", "algebra"),
    exemplars=("Is 91 prime?",),
    labels=frozenset({"internal", "eu"}),
    parameters_b=7.6,
    memory_mb=15_500.5,
    price=Price(0.1, 0.4),
    sampling={"temperature": 0, "stop": ["\n\n", None], "nested": {"a": [1.5, True]}},
    extra_body={"top_k": 1},
    aggregation_prompt="plain",
    max_in_flight=7,
    queue_timeout_s=1.5,
    timeout_s=33.25,
    enabled=False,
)


async def _versions(database: Database) -> state.Versions:
    async with database.reading() as connection:
        return await state.read_versions(connection)


async def test_a_card_comes_back_as_it_went_in(stores: Stores) -> None:
    """Every field, of a card with no default left."""
    for skill in FULL_CARD.skills:
        await stores.skills.create(Skill(skill))

    created = await stores.experts.create(FULL_CARD)

    assert created == FULL_CARD
    assert await stores.experts.get(FULL_CARD.id) == FULL_CARD
    assert await stores.experts.list() == [FULL_CARD]


async def test_an_adapter_comes_back_as_it_went_in(stores: Stores) -> None:
    card = make_card(adapter_of="zoo/weights/generalist")
    await stores.experts.create(card)

    assert await stores.experts.get(card.id) == card


async def test_how_a_server_is_started_comes_back_as_it_went_in(stores: Stores) -> None:
    serving = ServingOptions(
        dtype="half", tensor_parallel=2, gpus=("0", "1"), gpu_memory_utilization=0.4, kv_cache_gb=3, cpu_threads=4, max_lora_rank=16,
        max_loras=2, enforce_eager=False, sleep_mode=True, extra_arguments=("--seed", "1"), pinned=True, asleep_mb=900.5, load_s=61.5,
    )  # fmt: skip
    card = make_card(backend=Backend.VLLM, model="/models/base", serving=serving)
    await stores.experts.create(card)

    assert await stores.experts.get(card.id) == card


async def test_a_strategy_comes_back_as_it_went_in(stores: Stores) -> None:
    await stores.experts.create(make_card("fuser"))
    strategy = Strategy(
        id="panel",
        description="three",
        router="random",
        router_options={"floor": 0.25},
        pick=PickRule("sample", 5, 0.75),
        adjustments=RoutingAdjustments(("fuser",), ("fuser",), {"fuser": -0.25}, 0.125, 0.5, 0.75),
        aggregator="vote",
        aggregator_expert="fuser",
        fallback_expert="fuser",
        max_calls=3,
        timeout_s=7.5,
        enabled=False,
    )

    created = await stores.strategies.create(strategy)

    assert created == strategy
    assert await stores.strategies.list() == [strategy]


@pytest.mark.parametrize(
    "adjustments",
    [RoutingAdjustments(allow=("fuser",)), RoutingAdjustments(deny=("fuser",)), RoutingAdjustments(boost={"fuser": 0.1})],
    ids=["allow", "deny", "boost"],
)
async def test_who_is_named_by_a_strategys_adjustments_must_be_there_and_stay(stores: Stores, adjustments: RoutingAdjustments) -> None:
    strategy = Strategy("panel", adjustments=adjustments)
    with pytest.raises(InvalidRequest, match="names the unknown expert 'fuser'"):
        await stores.strategies.create(strategy)

    await stores.experts.create(make_card("fuser"))
    await stores.strategies.create(strategy)
    with pytest.raises(Conflict, match="named by strategy panel"):
        await stores.experts.delete("fuser")


@pytest.mark.parametrize("option", ["weak_expert", "planner_expert", "judge_expert"])
async def test_who_is_named_by_a_strategys_mode_options_must_stay(stores: Stores, option: str) -> None:
    await stores.experts.create(make_card("helper"))
    await stores.strategies.create(Strategy("panel", mode="contrast", mode_options={option: "helper"}))

    with pytest.raises(Conflict, match="'helper' is named by strategy panel"):
        await stores.experts.delete("helper")
    with pytest.raises(Conflict, match="'helper' is named by strategy panel"):
        await apply(stores.database, load_manifest("experts: []"), prune=True)
    assert [card.id for card in await stores.experts.list()] == ["helper"]


async def test_a_change_needs_the_newest_version(stores: Stores) -> None:
    """The second of two who read version 1 is refused, and the first one's change stands."""
    await stores.experts.create(make_card())
    first = await stores.experts.replace(make_card(description="first"), if_version=1)

    with pytest.raises(PreconditionFailed, match="is at version 2, not 1"):
        await stores.experts.replace(make_card(description="second"), if_version=1)
    with pytest.raises(PreconditionFailed):
        await stores.experts.delete("numerals", if_version=1)

    assert first.version == 2
    assert await stores.experts.get("numerals") == make_card(description="first", version=2)


async def test_of_many_simultaneous_changes_with_one_version_exactly_one_stands(stores: Stores) -> None:
    await stores.experts.create(make_card())

    changes = [stores.experts.replace(make_card(description=str(number)), if_version=1) for number in range(6)]
    results = await asyncio.gather(*changes, return_exceptions=True)

    assert sum(isinstance(result, ExpertCard) for result in results) == 1
    assert sum(isinstance(result, PreconditionFailed) for result in results) == 5


async def test_simultaneous_changes_without_a_version_all_count(stores: Stores) -> None:
    await stores.experts.create(make_card())

    await asyncio.gather(*(stores.experts.replace(make_card(description=str(number))) for number in range(6)))

    assert (await stores.experts.get("numerals")).version == 7


async def test_what_is_made_again_goes_on_from_its_last_version(stores: Stores) -> None:
    """So that an If-Match from before the deletion matches nothing."""
    await stores.experts.create(make_card())
    await stores.experts.replace(make_card())
    await stores.experts.delete("numerals")

    assert (await stores.experts.create(make_card())).version == 3
    await stores.experts.delete("numerals", if_version=3)
    assert (await stores.experts.create(make_card())).version == 4


async def test_an_id_that_is_taken_or_unknown_is_told(stores: Stores) -> None:
    await stores.experts.create(make_card())
    await stores.strategies.create(Strategy("auto"))

    with pytest.raises(Conflict, match="expert id 'numerals' is taken"):
        await stores.experts.create(make_card())
    with pytest.raises(NotFound, match="no expert 'numeral'; did you mean 'numerals'"):
        await stores.experts.get("numeral")
    with pytest.raises(NotFound, match="no expert 'x'; known are numerals"):
        await stores.experts.replace(make_card("x"))
    with pytest.raises(NotFound, match="no strategy 'autp'; did you mean 'auto'"):
        await stores.strategies.delete("autp")


async def test_a_card_with_an_unknown_skill_is_refused_with_the_nearest(stores: Stores) -> None:
    await stores.skills.create(Skill("roman numerals"))

    with pytest.raises(InvalidRequest, match="unknown skill 'roman numerls'; did you mean 'roman numerals'") as caught:
        await stores.experts.create(make_card(skills=("roman numerals", "roman numerls")))

    assert caught.value.param == "skills[1]"
    assert await stores.experts.list() == []


async def test_a_card_that_could_not_be_used_is_not_written(database: Database) -> None:
    asked: list[str] = []

    def check(card: ExpertCard) -> None:
        asked.append(card.model)
        if card.model == "numerls":
            raise InvalidRequest("there is no folder 'numerls'", param="model")

    experts = Stores.of(database, check_card=check).experts
    stored = await experts.create(make_card(model="numerals"))
    for write in (experts.create(make_card("foo", model="numerls")), experts.replace(make_card(model="numerls"))):
        with pytest.raises(InvalidRequest, match="no folder 'numerls'"):
            await write

    assert asked == ["numerals", "numerls", "numerls"]
    assert await experts.list() == [stored]


async def test_a_strategy_with_an_unknown_expert_is_refused_with_the_nearest(stores: Stores) -> None:
    await stores.experts.create(make_card())

    with pytest.raises(InvalidRequest, match="unknown expert 'numeral'; did you mean 'numerals'") as caught:
        await stores.strategies.create(Strategy("auto", fallback_expert="numeral"))

    assert caught.value.param == "fallback_expert"


async def test_an_expert_that_a_strategy_names_cannot_be_deleted(stores: Stores) -> None:
    await stores.experts.create(make_card())
    await stores.strategies.create(Strategy("auto", fallback_expert="numerals"))

    with pytest.raises(Conflict, match="named by strategy auto"):
        await stores.experts.delete("numerals")

    await stores.strategies.delete("auto")
    await stores.experts.delete("numerals")
    assert await stores.experts.list() == []


async def test_skills_are_made_described_and_removed(stores: Stores) -> None:
    await stores.skills.create(Skill("algebra"))
    await stores.skills.replace(Skill("algebra", "Solving for x"))

    assert await stores.skills.list() == [Skill("algebra", "Solving for x")]
    with pytest.raises(Conflict):
        await stores.skills.create(Skill("algebra"))
    with pytest.raises(NotFound, match="did you mean 'algebra'"):
        await stores.skills.replace(Skill("algebre"))

    await stores.skills.delete("algebra")
    assert await stores.skills.list() == []


async def test_a_skill_in_use_cannot_be_deleted(stores: Stores) -> None:
    await stores.questions.add([make_question()], source="test")
    await stores.experts.create(make_card(skills=("roman numerals",)))

    with pytest.raises(Conflict, match="used by expert numerals, labelled questions"):
        await stores.skills.delete("roman numerals")


async def test_every_change_bumps_the_registry_version_and_a_failed_one_does_not(stores: Stores, database: Database) -> None:
    changes = [
        lambda: stores.experts.create(make_card()),
        lambda: stores.experts.replace(make_card(description="new")),
        lambda: stores.strategies.create(Strategy("auto")),
        lambda: stores.strategies.replace(Strategy("auto", max_calls=2)),
        lambda: stores.strategies.delete("auto"),
        lambda: stores.skills.create(Skill("algebra")),
        lambda: stores.skills.replace(Skill("algebra", "x")),
        lambda: stores.skills.delete("algebra"),
        lambda: stores.experts.delete("numerals"),
    ]
    for number, change in enumerate(changes, start=1):
        await change()
        assert await _versions(database) == state.Versions(number, 0)

    with pytest.raises(NotFound):
        await stores.experts.delete("numerals")
    assert await _versions(database) == state.Versions(len(changes), 0)


async def test_a_text_that_no_database_can_hold_is_an_invalid_request(stores: Stores, backend: str) -> None:
    with pytest.raises(InvalidRequest):
        await stores.experts.create(make_card(description="half a pair: \ud800"))
    if backend == "postgresql":
        with pytest.raises(InvalidRequest, match="a value cannot be stored"):
            await stores.experts.create(make_card(description="NUL: \0"))

    assert await stores.experts.list() == []


async def test_no_secret_is_in_the_database(stores: Stores, database: Database) -> None:
    """Only the reference is stored."""
    card = await stores.experts.create(replace(make_card(), api_key="env:SOME_KEY"))
    async with database.reading() as connection:
        stored = await connection.scalar(sa.text("SELECT api_key FROM experts"))

    assert stored == card.api_key == "env:SOME_KEY"
