"""The outcomes that count as a table, on both databases."""

from __future__ import annotations

import math

import pytest

from domain.outcomes import OutcomeTable
from experts_registry import outcome_matrix
from experts_registry.profiles import ProfileStore
from experts_registry.stores import Stores
from tests.fakes.registry import make_card, make_outcome, make_question

EXPERTS = ("generalist", "numerals", "idle")


@pytest.fixture(name="profiles")
async def _profiles(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> ProfileStore:
    """Seven questions and three experts, read in pages of three."""
    monkeypatch.setattr(outcome_matrix, "PAGE", 3)
    questions = [make_question(f"q{number}", question=f"Write {number} in words.", category="numbers") for number in range(7)]
    await stores.questions.add(questions, source="test")
    for expert_id in EXPERTS:
        await stores.experts.create(make_card(expert_id))
    return stores.profiles


def cells(table: OutcomeTable) -> dict[tuple[str, str], float]:
    """What was measured, by question and expert."""
    width = len(table.expert_ids)
    return {
        (question_id, expert_id): table.scores[row * width + column]
        for row, question_id in enumerate(table.question_ids)
        for column, expert_id in enumerate(table.expert_ids)
        if not math.isnan(table.scores[row * width + column])
    }


async def test_every_outcome_that_counts_is_in_its_cell_over_all_pages(profiles: ProfileStore) -> None:
    numerals = [make_outcome("numerals", f"q{number}", correct=number % 2 == 0, latency_ms=10.0 + number) for number in range(7)]
    generalist = [make_outcome("generalist", f"q{number}", correct=False) for number in (1, 5)]
    await profiles.import_outcomes([*numerals, *generalist], [])

    table = await profiles.outcome_table(EXPERTS)

    assert table.expert_ids == ("generalist", "numerals")
    assert table.questions[3] == "Write 3 in words."
    assert (table.categories[3], table.skills[3]) == ("numbers", ("roman numerals",))
    assert cells(table) == {
        **{(f"q{number}", "numerals"): float(number % 2 == 0) for number in range(7)},
        ("q1", "generalist"): 0.0,
        ("q5", "generalist"): 0.0,
    }
    assert table.latency_ms is not None
    assert table.latency_ms[3 * 2 + 1] == 13.0
    assert math.isnan(table.latency_ms[1 * 2])


async def test_questions_and_experts_without_outcomes_are_left_out(profiles: ProfileStore) -> None:
    await profiles.import_outcomes([make_outcome("numerals", "q2"), make_outcome("generalist", "q4", error="refused")], [])
    table = await profiles.outcome_table(EXPERTS)

    assert (table.question_ids, table.expert_ids) == (("q2",), ("numerals",))
    assert await profiles.outcome_table(("idle",)) == OutcomeTable((), (), table.scores[:0], latency_ms=table.scores[:0])


async def test_of_two_runs_the_later_answer_is_in_the_table_until_its_run_is_rolled_back(profiles: ProfileStore) -> None:
    """Although the counts of the profile are the same before and after: the version tells them apart."""
    await profiles.import_outcomes([make_outcome("numerals", "q1"), make_outcome("numerals", "q2", correct=False)], [])
    first, before = cells(await profiles.outcome_table(EXPERTS)), await profiles.outcomes_version()
    later = await profiles.import_outcomes([make_outcome("numerals", "q1", correct=False), make_outcome("numerals", "q2")], [])
    second, between = cells(await profiles.outcome_table(EXPERTS)), await profiles.outcomes_version()
    assert later is not None
    await profiles.rollback_run(later)
    third, after = cells(await profiles.outcome_table(EXPERTS)), await profiles.outcomes_version()

    assert first == third == {("q1", "numerals"): 1.0, ("q2", "numerals"): 0.0}
    assert second == {("q1", "numerals"): 0.0, ("q2", "numerals"): 1.0}
    assert len({before, between, after}) == 3
    assert await profiles.outcomes_version() == after


async def test_a_question_that_is_gone_is_not_in_the_table(stores: Stores, profiles: ProfileStore) -> None:
    await profiles.import_outcomes([make_outcome("numerals", "q1"), make_outcome("numerals", "q2")], [])
    await stores.questions.remove("q1")

    assert (await profiles.outcome_table(EXPERTS)).question_ids == ("q2",)


async def test_the_mean_latency_is_of_what_counts(profiles: ProfileStore) -> None:
    outcomes = [make_outcome("numerals", "q1", latency_ms=10.0), make_outcome("numerals", "q2", latency_ms=30.0)]
    await profiles.import_outcomes([*outcomes, make_outcome("generalist", "q1", error="refused", latency_ms=9.0)], [])

    assert await profiles.mean_latencies() == {"numerals": 20.0}
