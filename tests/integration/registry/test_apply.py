"""A manifest into the registry and out again; the first start of an empty one."""

from __future__ import annotations

import asyncio

import pytest

from domain.errors import Conflict, InvalidRequest
from domain.evaluation import AggregatorOutcome, RunState
from domain.experts import ExpertCard
from domain.skills import SkillCount
from experts_registry import state
from experts_registry.apply import Changes, apply
from experts_registry.database import Database
from experts_registry.manifest import export, load_manifest
from experts_registry.seed import seed_if_empty
from experts_registry.skills import Skill
from experts_registry.stores import Stores
from tests.fakes.registry import make_card, make_outcome, make_question

MANIFEST = """
experts:
  - {id: numerals, backend: embedded, model: numerals, skills: [roman numerals]}
  - {id: generalist, backend: embedded, model: generalist}
strategies:
  - {id: auto, pick: {kind: dynamic, k: 3}}
  - {id: panel, aggregator_expert: generalist}
skills:
  roman numerals: Roman to Arabic and back
  capitals:
"""
EVERYTHING = ("skill roman numerals", "skill capitals", "expert numerals", "expert generalist", "strategy auto", "strategy panel")


async def _version(database: Database) -> int:
    async with database.reading() as connection:
        return (await state.read_versions(connection)).registry


async def test_applying_makes_what_the_manifest_declares(stores: Stores, database: Database) -> None:
    changes = await apply(stores.database, load_manifest(MANIFEST))

    assert changes == Changes(created=EVERYTHING)
    assert [card.id for card in await stores.experts.list()] == ["generalist", "numerals"]
    assert [strategy.id for strategy in await stores.strategies.list()] == ["auto", "panel"]
    assert await stores.skills.list() == [Skill("capitals"), Skill("roman numerals", "Roman to Arabic and back")]
    assert await _version(database) == 1


async def test_applying_the_same_again_changes_nothing(stores: Stores, database: Database) -> None:
    await apply(stores.database, load_manifest(MANIFEST))
    changes = await apply(stores.database, load_manifest(MANIFEST), prune=True)

    assert changes == Changes(unchanged=EVERYTHING)
    assert not changes.any
    assert await _version(database) == 1
    assert {card.version for card in await stores.experts.list()} == {1}


@pytest.mark.parametrize("dry_run", [False, True])
async def test_of_a_manifest_only_the_cards_that_change_have_to_be_usable(stores: Stores, dry_run: bool) -> None:
    def check(card: ExpertCard) -> None:
        raise InvalidRequest(f"there is no folder {card.model!r}", param="model")

    await apply(stores.database, load_manifest(MANIFEST))
    changed = load_manifest(MANIFEST.replace("model: generalist", "model: generalst"))
    await apply(stores.database, load_manifest(MANIFEST), check_card=check, dry_run=dry_run)
    with pytest.raises(InvalidRequest, match="no folder 'generalst'"):
        await apply(stores.database, changed, check_card=check, dry_run=dry_run)

    assert {card.model for card in await stores.experts.list()} == {"numerals", "generalist"}


async def test_applying_changes_what_differs_and_leaves_the_rest(stores: Stores) -> None:
    await apply(stores.database, load_manifest(MANIFEST))
    changes = await apply(
        stores.database,
        load_manifest(MANIFEST.replace("model: generalist", "model: other").replace("k: 3", "k: 2").replace("capitals:", "capitals: x")),
    )

    assert changes.updated == ("skill capitals", "expert generalist", "strategy auto")
    assert [(card.id, card.version) for card in await stores.experts.list()] == [("generalist", 2), ("numerals", 1)]


async def test_without_prune_nothing_is_removed_and_with_it_what_is_left_out(stores: Stores) -> None:
    await apply(stores.database, load_manifest(MANIFEST))
    smaller = load_manifest("experts: [{id: numerals, backend: embedded, model: numerals}]\nstrategies: []\nskills: {}")

    assert (await apply(stores.database, smaller)).removed == ()
    assert (await apply(stores.database, smaller, prune=True)).removed == (
        "strategy auto",
        "strategy panel",
        "expert generalist",
        "skill capitals",
        "skill roman numerals",
    )
    assert [card.id for card in await stores.experts.list()] == ["numerals"]


async def test_prune_leaves_alone_what_the_manifest_does_not_speak_of(stores: Stores) -> None:
    """A file with experts only says nothing about strategies."""
    await apply(stores.database, load_manifest(MANIFEST.replace(", aggregator_expert: generalist", "")))
    changes = await apply(
        stores.database,
        load_manifest("experts: [{id: numerals, backend: embedded, model: numerals, skills: [roman numerals]}]"),
        prune=True,
    )

    assert changes.removed == ("expert generalist",)


async def test_prune_keeps_skills_that_something_uses(stores: Stores) -> None:
    await stores.questions.add([make_question(skills=("used",))], source="test")
    changes = await apply(stores.database, load_manifest("skills: {new: x}"), prune=True)

    assert changes == Changes(created=("skill new",))


async def test_an_expert_that_a_kept_strategy_names_is_not_pruned(stores: Stores) -> None:
    await apply(stores.database, load_manifest(MANIFEST))

    with pytest.raises(Conflict, match="'generalist' is named by strategy panel"):
        await apply(stores.database, load_manifest("experts: [{id: numerals, backend: embedded, model: numerals}]"), prune=True)
    assert len(await stores.experts.list()) == 2


async def test_one_wrong_entry_and_nothing_is_applied(stores: Stores, database: Database) -> None:
    wrong = MANIFEST.replace("aggregator_expert: generalist", "aggregator_expert: generalists")

    with pytest.raises(InvalidRequest, match="unknown expert 'generalists'; did you mean 'generalist'"):
        await apply(stores.database, load_manifest(wrong))
    with pytest.raises(InvalidRequest, match="unknown skill 'roman numerals'"):
        await apply(stores.database, load_manifest(MANIFEST.replace("  roman numerals:", "  roman numbers:")))
    assert await stores.experts.list() == []
    assert await stores.skills.list() == []
    assert await _version(database) == 0


async def test_a_dry_run_tells_and_keeps_nothing(stores: Stores, database: Database) -> None:
    changes = await apply(stores.database, load_manifest(MANIFEST), dry_run=True)

    assert changes == Changes(created=EVERYTHING)
    assert await stores.experts.list() == []
    assert await _version(database) == 0
    with pytest.raises(InvalidRequest):
        await apply(stores.database, load_manifest(MANIFEST.replace("  roman numerals:", "  roman numbers:")), dry_run=True)


async def test_what_is_exported_applies_without_a_change(stores: Stores) -> None:
    await apply(stores.database, load_manifest(MANIFEST))
    skills = {skill.name: skill.description for skill in await stores.skills.list()}
    exported = export(await stores.experts.list(), await stores.strategies.list(), skills)

    assert not (await apply(stores.database, load_manifest(exported), prune=True)).any


async def _seed(stores: Stores) -> bool:
    return await seed_if_empty(
        stores.database,
        MANIFEST,
        [make_question()],
        [make_outcome(), make_outcome("generalist", correct=False)],
        [AggregatorOutcome("generalist", "q1", "x", correct=True)],
    )


async def test_an_empty_registry_is_seeded_with_everything(stores: Stores, database: Database) -> None:
    assert await _seed(stores)

    assert len(await stores.experts.list()) == 2
    assert await stores.questions.list() == [make_question()]
    assert (await stores.profiles.profiles())["numerals"].overall == SkillCount(1, 1)
    assert (await stores.profiles.aggregator_profiles())["generalist"].overall == SkillCount(1, 1)
    assert [(run.state, run.num_recorded, run.note) for run in await stores.profiles.list_runs()] == [(RunState.FINISHED, 2, "zoo")]
    async with database.reading() as connection:
        assert await state.read_versions(connection) == state.Versions(1, 1)


async def test_processes_that_start_together_seed_once(stores: Stores, other_process: Database) -> None:
    seeded = await asyncio.gather(_seed(stores), _seed(Stores.of(other_process)), _seed(stores))

    assert sorted(seeded) == [False, False, True]
    assert len(await stores.profiles.list_runs()) == 1


async def test_a_registry_that_somebody_has_emptied_stays_empty(stores: Stores) -> None:
    await _seed(stores)
    await stores.strategies.delete("panel")
    for expert_id in ("numerals", "generalist"):
        await stores.experts.delete(expert_id)

    assert not await _seed(stores)
    assert await stores.experts.list() == []


async def test_a_registry_that_somebody_has_begun_is_not_seeded(stores: Stores) -> None:
    await stores.experts.create(make_card("mine"))

    assert not await _seed(stores)
    assert [card.id for card in await stores.experts.list()] == ["mine"]


async def test_a_seed_that_is_wrong_leaves_the_registry_empty(stores: Stores) -> None:
    with pytest.raises(InvalidRequest):
        await seed_if_empty(stores.database, MANIFEST.replace("  roman numerals:", "  roman numbers:"), [], [], [])

    assert await stores.skills.list() == []
    assert await _seed(stores)
