"""The registry's counts as matrices."""

from __future__ import annotations

import numpy as np

from domain.registry import RegistrySnapshot
from routers.score_table import ScoreTable
from tests.fakes.encoder import HashingEncoder
from tests.fakes.routing import card, holder_for, profile, snapshot_of


async def table_of(snapshot: RegistrySnapshot) -> ScoreTable:
    return ScoreTable.build(snapshot, (await holder_for(snapshot, HashingEncoder())).index())


async def test_counts_come_in_the_order_that_was_asked_for() -> None:
    counts = (await table_of(snapshot_of())).counts(["generalist", "calculator"], ["capitals", "addition"])

    assert counts.num_answered.tolist() == [[50, 50], [50, 50]]
    assert counts.num_correct.tolist() == [[28, 28], [2, 48]]
    assert counts.overall_correct.tolist() == [112, 100]
    assert counts.symbolic_total.tolist() == [24, 0]


async def test_unknown_experts_and_skills_have_no_counts() -> None:
    counts = (await table_of(snapshot_of())).counts(["nobody", "calculator"], ["nothing", "addition"])

    assert counts.num_answered.tolist() == [[0, 0], [0, 50]]
    assert counts.overall_answered.tolist() == [0, 200]


async def test_a_skill_that_only_a_profile_knows_has_a_column() -> None:
    snapshot = snapshot_of(profiles={"old": profile("old", {"latin": (10, 9)})})
    counts = (await table_of(snapshot)).counts(["old"], ["latin"])

    assert counts.num_correct.tolist() == [[9]]


async def test_declared_skills_are_marked() -> None:
    snapshot = snapshot_of([card("cook", skills=("cooking", "addition"))], {})
    table = await table_of(snapshot)
    counts = table.counts(["cook"], ["cooking", "addition", "capitals"])

    assert counts.declared.tolist() == [[1, 1, 0]]
    assert table.pool_accuracy is None


async def test_the_pools_accuracy_is_correct_answers_per_answer() -> None:
    table = await table_of(snapshot_of(profiles={"a": profile("a", {"addition": (30, 30)}), "b": profile("b", {"addition": (10, 0)})}))

    assert np.isclose(table.pool_accuracy or 0, 0.75)
