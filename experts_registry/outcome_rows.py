"""Outcomes and their counts as rows, on a connection that holds the registry's lock.

Of all outcomes of one expert on one question, the one recorded last counts, so that runs that overlap count each question
once. ``profile_counts`` is changed by the difference that a write makes, never summed up anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.evaluation import QuestionOutcome
from domain.skills import SkillCount
from experts_registry.questions import chunks
from experts_registry.tables import profile_counts, profile_outcomes
from experts_registry.tally import Counts, tally

Pair = tuple[str, str]
"""Expert id and question id."""


def to_row(outcome: QuestionOutcome, run_id: str) -> dict[str, Any]:
    """Every column but ``recorded`` and ``counts``."""
    return {
        "run_id": run_id,
        "expert_id": outcome.expert_id,
        "question_id": outcome.question_id,
        "category": outcome.category,
        "skills": list(outcome.skills),
        "correct": outcome.correct,
        "answer": outcome.answer,
        "latency_ms": outcome.latency_ms,
        "error": outcome.error,
    }


def from_row(row: sa.RowMapping) -> QuestionOutcome:
    return QuestionOutcome(
        expert_id=row["expert_id"],
        question_id=row["question_id"],
        skills=tuple(row["skills"]),
        category=row["category"],
        correct=row["correct"],
        answer=row["answer"],
        latency_ms=row["latency_ms"],
        error=row["error"],
    )


async def select(connection: AsyncConnection, *conditions: sa.ColumnElement[bool]) -> list[QuestionOutcome]:
    """The outcomes that meet every condition, by expert and question, in the order of recording."""
    rows = (await connection.execute(sa.select(profile_outcomes).where(*conditions))).mappings().all()
    rows = sorted(rows, key=lambda row: (row["expert_id"], row["question_id"], row["recorded"]))
    return [from_row(row) for row in rows]


async def counting(connection: AsyncConnection, pairs: Collection[Pair]) -> list[QuestionOutcome]:
    """The outcomes that count now for these experts and questions."""
    found = []
    for expert_id, question_ids in _by_expert(pairs):
        for some in chunks(question_ids):
            found += await select(connection, *_pair_is_in(expert_id, some), profile_outcomes.c.counts)
    return found


async def insert(connection: AsyncConnection, run_id: str, outcomes: Sequence[QuestionOutcome], *, recorded: int) -> None:
    """Write *outcomes* as those that count now, in place of what the run had for the same experts and questions."""
    pairs = {(outcome.expert_id, outcome.question_id) for outcome in outcomes}
    before = await counting(connection, pairs)
    for expert_id, question_ids in _by_expert(pairs):
        for some in chunks(question_ids):
            which = _pair_is_in(expert_id, some)
            await connection.execute(profile_outcomes.delete().where(*which, profile_outcomes.c.run_id == run_id))
            await connection.execute(profile_outcomes.update().where(*which, profile_outcomes.c.counts).values(counts=False))
    rows = [{**to_row(outcome, run_id), "recorded": recorded, "counts": True} for outcome in outcomes]
    for some_rows in chunks(rows):
        await connection.execute(profile_outcomes.insert(), list(some_rows))
    await _add(connection, tally(outcomes, minus=before))


async def retire(connection: AsyncConnection, run_id: str) -> None:
    """Let the outcomes of a run count no more; where another run has asked the same, its newest outcome counts again."""
    of_run = profile_outcomes.c.run_id == run_id
    retired = await select(connection, of_run, profile_outcomes.c.counts)
    await connection.execute(profile_outcomes.update().where(of_run).values(counts=False, recorded=0))
    for expert_id, question_ids in _by_expert({(outcome.expert_id, outcome.question_id) for outcome in retired}):
        for some in chunks(question_ids):
            others = _pair_is_in(expert_id, some)
            newest = (
                sa.select(profile_outcomes.c.question_id, sa.func.max(profile_outcomes.c.recorded).label("recorded"))
                .where(*others, profile_outcomes.c.recorded > 0)
                .group_by(profile_outcomes.c.question_id)
            )
            for row in (await connection.execute(newest)).all():
                successor = (profile_outcomes.c.question_id == row.question_id) & (profile_outcomes.c.recorded == row.recorded)
                await connection.execute(
                    profile_outcomes.update().where(profile_outcomes.c.expert_id == expert_id, successor).values(counts=True)
                )
    successors = await counting(connection, {(outcome.expert_id, outcome.question_id) for outcome in retired})
    await _add(connection, tally(successors, minus=retired))


async def read_counts(connection: AsyncConnection) -> Counts:
    """The counts as kept."""
    rows = await connection.execute(sa.select(profile_counts))
    return {(row.expert_id, row.skill): SkillCount(row.num_answered, row.num_correct) for row in rows}


async def _add(connection: AsyncConnection, difference: Counts) -> None:
    stored = await read_counts(connection)
    for (expert_id, skill), count in difference.items():
        key = (profile_counts.c.expert_id == expert_id, profile_counts.c.skill == skill)
        total = stored.get((expert_id, skill), SkillCount()) + count
        values = {"num_answered": total.num_answered, "num_correct": total.num_correct}
        if (expert_id, skill) not in stored:
            await connection.execute(profile_counts.insert(), {"expert_id": expert_id, "skill": skill, **values})
        elif total.num_answered:
            await connection.execute(profile_counts.update().where(*key).values(values))
        else:
            await connection.execute(profile_counts.delete().where(*key))


def _pair_is_in(expert_id: str, question_ids: Sequence[str]) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return profile_outcomes.c.expert_id == expert_id, profile_outcomes.c.question_id.in_(question_ids)


def _by_expert(pairs: Iterable[Pair]) -> list[tuple[str, list[str]]]:
    """Question ids per expert: a condition on one column each, which both databases answer from the index."""
    groups: dict[str, list[str]] = {}
    for expert_id, question_id in sorted(pairs):
        groups.setdefault(expert_id, []).append(question_id)
    return list(groups.items())
