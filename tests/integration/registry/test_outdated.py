"""What was measured of an expert counts for as long as its card says that it answers as it did; on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.evaluation import AggregatorOutcome
from domain.experts import Price
from domain.skills import SkillCount
from experts_registry.apply import apply
from experts_registry.database import Database
from experts_registry.directory import read_snapshot
from experts_registry.manifest import load_manifest
from experts_registry.profiles import ProfileStore
from experts_registry.stores import Stores
from tests.fakes.registry import make_card, make_outcome, make_question

QUESTIONS = ("q1", "q2", "q3")
CARD = make_card("numerals")
CHANGED = replace(CARD, model="numerals-2")


@pytest.fixture(name="profiles")
async def _profiles(stores: Stores) -> ProfileStore:
    """Two experts, three questions, all of them answered by *numerals*, two rightly."""
    await stores.questions.add([make_question(question_id) for question_id in QUESTIONS], source="test")
    for card in (CARD, make_card("generalist")):
        await stores.experts.create(card)
    await stores.profiles.import_outcomes([make_outcome(question_id=q, correct=q != "q3", latency_ms=5.0) for q in QUESTIONS], [])
    return stores.profiles


async def overall(profiles: ProfileStore) -> SkillCount | None:
    found = (await profiles.profiles()).get("numerals")
    return None if found is None else found.overall


async def test_what_an_older_card_answered_counts_nowhere_and_comes_back_with_it(stores: Stores, profiles: ProfileStore) -> None:
    before = await profiles.profiles(), await profiles.outcomes_version()
    changed = await stores.experts.redeclare(CHANGED)
    without = await profiles.profiles()
    table = await profiles.outcome_table(["numerals", "generalist"])
    left, latencies, outdated = await profiles.outcomes(), await profiles.mean_latencies(), await profiles.outdated()
    between = await profiles.outcomes_version()
    back = await stores.experts.redeclare(CARD)

    assert (changed.num_outdated, back.num_outdated) == (3, 0)
    assert (without, left, latencies, table.expert_ids) == ({}, [], {}, ())
    assert outdated == {"numerals": 3}
    assert between != before[1]
    assert (await profiles.profiles(), await profiles.outcomes_version()) == before
    assert await profiles.outdated() == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"price": Price(1.0, 2.0)},
        {"description": "Another one."},
        {"skills": ("roman numerals",), "labels": frozenset({"eu"})},
        {"context_length": 9000, "max_in_flight": 2, "timeout_s": 5.0, "enabled": False},
        {"base_url": "http://elsewhere/v1", "api_key": "env:KEY"},
    ],
)
async def test_what_does_not_change_its_answers_leaves_what_was_measured(
    stores: Stores, profiles: ProfileStore, changes: dict[str, object]
) -> None:
    declared = await stores.experts.redeclare(replace(CARD, **changes))  # type: ignore[arg-type]

    assert declared.num_outdated == 0
    assert await overall(profiles) == SkillCount(3, 2)


async def test_measured_anew_nothing_is_outdated_and_only_the_new_counts(stores: Stores, profiles: ProfileStore) -> None:
    await stores.experts.replace(CHANGED)
    run_id = await profiles.create_run(["numerals"], QUESTIONS)
    await profiles.record_outcomes(run_id, [make_outcome(expert_fingerprint=None)])
    partly = await overall(profiles), await profiles.outdated()
    await profiles.record_outcomes(run_id, [make_outcome(question_id=q, expert_fingerprint=CHANGED.fingerprint) for q in ("q2", "q3")])

    assert partly == (SkillCount(1, 1), {"numerals": 2})
    assert (await overall(profiles), await profiles.outdated()) == (SkillCount(3, 3), {})


async def test_an_answer_that_was_given_before_the_card_was_changed_replaces_none_that_counts(
    stores: Stores, profiles: ProfileStore
) -> None:
    """A run goes on while the card is changed: what was asked of the old one comes late."""
    await stores.experts.replace(CHANGED)
    run_id = await profiles.create_run(["numerals"], QUESTIONS)
    new = make_outcome(expert_fingerprint=CHANGED.fingerprint)
    await profiles.record_outcomes(run_id, [new])
    await profiles.record_outcomes(run_id, [make_outcome(correct=False), make_outcome(question_id="q2", correct=False)])

    assert await overall(profiles) == SkillCount(1, 1)
    assert await profiles.outcomes() == [new]
    assert {outcome.question_id for outcome in await profiles.outcomes(run_id)} == {"q1", "q2"}
    await profiles.record_outcomes(run_id, [replace(new, question_id="q2")])
    assert await overall(profiles) == SkillCount(2, 2)


async def test_taking_a_run_back_brings_back_no_older_cards_answers(stores: Stores, profiles: ProfileStore) -> None:
    await stores.experts.replace(CHANGED)
    run_id = await profiles.import_outcomes([make_outcome(question_id=q, expert_fingerprint=None) for q in QUESTIONS], [])
    assert run_id is not None
    await profiles.rollback_run(run_id)

    assert (await profiles.profiles(), await profiles.outdated()) == ({}, {"numerals": 3})
    await stores.experts.replace(CARD)
    assert await overall(profiles) == SkillCount(3, 2)


async def test_of_an_expert_that_comes_back_as_another_nothing_counts(stores: Stores, profiles: ProfileStore) -> None:
    await stores.experts.delete("numerals")
    other = await stores.experts.declare(CHANGED)
    await stores.experts.delete("numerals")
    same = await stores.experts.declare(CARD)

    assert (other.num_outdated, same.num_outdated) == (3, 0)
    assert await overall(profiles) == SkillCount(3, 2)


async def test_a_manifest_tells_what_it_makes_outdated(database: Database, stores: Stores, profiles: ProfileStore) -> None:
    text = "experts:\n  - {id: numerals, backend: embedded, model: MODEL}\n"
    tried = await apply(database, load_manifest(text.replace("MODEL", "numerals-2")), dry_run=True)
    kept = await overall(profiles)
    applied = await apply(database, load_manifest(text.replace("MODEL", "numerals-2")))
    gone = await overall(profiles)
    back = await apply(database, load_manifest(text.replace("MODEL", "numerals")))

    assert tried.outdated == applied.outdated == ("expert numerals: 3 questions",)
    assert (kept, gone, await overall(profiles)) == (SkillCount(3, 2), None, SkillCount(3, 2))
    assert back.outdated == ()


async def test_how_an_older_card_aggregated_counts_for_nothing_also_where_only_its_prompt_was_another(
    database: Database, stores: Stores, profiles: ProfileStore
) -> None:
    await profiles.set_aggregator_outcomes([AggregatorOutcome("numerals", q, "x", correct=q == "q1") for q in QUESTIONS])
    before = await profiles.aggregator_profiles(), (await read_snapshot(database)).aggregator_profiles
    prompted = await stores.experts.redeclare(replace(CARD, aggregation_prompt="compact"))
    after = await profiles.aggregator_profiles(), (await read_snapshot(database)).aggregator_profiles
    still = await overall(profiles)
    await stores.experts.replace(CARD)

    assert before[0]["numerals"].overall == before[1]["numerals"].overall == SkillCount(3, 1)
    assert after == ({}, {})
    assert (prompted.num_outdated, still) == (0, SkillCount(3, 2)), "its answers to questions are the same"
    assert (await profiles.aggregator_profiles(), (await read_snapshot(database)).aggregator_profiles) == before


async def test_a_skill_that_was_removed_meanwhile_comes_back_with_what_was_measured_of_it(stores: Stores, profiles: ProfileStore) -> None:
    await stores.experts.replace(CHANGED)
    for question_id in QUESTIONS:
        await stores.questions.remove(question_id)
    await stores.skills.delete("roman numerals")
    await stores.experts.replace(CARD)

    assert await overall(profiles) == SkillCount(3, 2)
    assert "roman numerals" in [skill.name for skill in await stores.skills.list()]
