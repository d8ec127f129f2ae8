"""Outcomes and their counts as rows, on a connection that holds the registry's lock.

Of all outcomes of one expert on one question, the one recorded last counts, so that runs that overlap count each question
once. ``profile_counts`` is changed by the difference that a write makes, never summed up anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
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
RETIRED = 0
"""``recorded`` of the outcomes of a run that was rolled back."""


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
    for which in _conditions(pairs):
        found += await select(connection, which, profile_outcomes.c.counts)
    return found


async def insert(connection: AsyncConnection, run_id: str, outcomes: Sequence[QuestionOutcome], *, recorded: int) -> None:
    """Write *outcomes*, at most one per expert and question, in place of what the run had for the same.

    An answer counts from now on instead of every earlier one. An error counts for nothing, and replaces no answer.
    """
    answers = [outcome for outcome in outcomes if outcome.error is None]
    pairs = _pairs(answers)
    before = await counting(connection, pairs)
    for which in _conditions(pairs):
        await connection.execute(profile_outcomes.update().where(which, profile_outcomes.c.counts).values(counts=False))
    for which in _conditions(pairs):
        await connection.execute(profile_outcomes.delete().where(which, profile_outcomes.c.run_id == run_id))
    await _write(connection, [{**to_row(outcome, run_id), "recorded": recorded, "counts": True} for outcome in answers])
    await _insert_errors(connection, run_id, [outcome for outcome in outcomes if outcome.error is not None], recorded)
    await _add(connection, tally(answers, minus=before))


async def _insert_errors(connection: AsyncConnection, run_id: str, errors: Sequence[QuestionOutcome], recorded: int) -> None:
    answered: set[Pair] = set()
    for which in _conditions(_pairs(errors)):
        of_run = (which, profile_outcomes.c.run_id == run_id)
        answered |= _pairs(await select(connection, *of_run, profile_outcomes.c.error.is_(None)))
        await connection.execute(profile_outcomes.delete().where(*of_run, profile_outcomes.c.error.is_not(None)))
    kept = [outcome for outcome in errors if (outcome.expert_id, outcome.question_id) not in answered]
    await _write(connection, [{**to_row(outcome, run_id), "recorded": recorded, "counts": False} for outcome in kept])


async def _write(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    for some in chunks(rows):
        await connection.execute(profile_outcomes.insert(), list(some))


async def retire(connection: AsyncConnection, run_id: str) -> None:
    """Let the outcomes of a run count no more; where another run has asked the same, its newest answer counts again."""
    of_run = profile_outcomes.c.run_id == run_id
    retired = await select(connection, of_run, profile_outcomes.c.counts)
    await connection.execute(profile_outcomes.update().where(of_run).values(counts=False, recorded=RETIRED))
    for which in _conditions(_pairs(retired)):
        others = (which, profile_outcomes.c.recorded != RETIRED, profile_outcomes.c.error.is_(None))
        newest = (
            sa.select(
                profile_outcomes.c.expert_id,
                profile_outcomes.c.question_id,
                sa.func.max(profile_outcomes.c.recorded).label("recorded"),
            )
            .where(*others)
            .group_by(profile_outcomes.c.expert_id, profile_outcomes.c.question_id)
            .subquery()
        )
        is_newest = sa.tuple_(profile_outcomes.c.expert_id, profile_outcomes.c.question_id, profile_outcomes.c.recorded).in_(
            sa.select(newest)
        )
        await connection.execute(profile_outcomes.update().where(which, is_newest).values(counts=True))
    successors = await counting(connection, _pairs(retired))
    await _add(connection, tally(successors, minus=retired))


async def read_counts(connection: AsyncConnection, *conditions: sa.ColumnElement[bool]) -> Counts:
    """The counts as kept, of the experts that meet every condition."""
    rows = await connection.execute(sa.select(profile_counts).where(*conditions))
    return {(row.expert_id, row.skill): SkillCount(row.num_answered, row.num_correct) for row in rows}


async def _add(connection: AsyncConnection, difference: Counts) -> None:
    expert_ids = {expert_id for expert_id, _ in difference}
    stored = await read_counts(connection, profile_counts.c.expert_id.in_(expert_ids))
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


def _pairs(outcomes: Iterable[QuestionOutcome]) -> set[Pair]:
    return {(outcome.expert_id, outcome.question_id) for outcome in outcomes}


def _conditions(pairs: Collection[Pair]) -> Iterator[sa.ColumnElement[bool]]:
    """Conditions that together name *pairs*: one expert and a piece of its questions each, answered from the index."""
    groups: dict[str, list[str]] = {}
    for expert_id, question_id in sorted(pairs):
        groups.setdefault(expert_id, []).append(question_id)
    for expert_id, question_ids in groups.items():
        for some in chunks(question_ids):
            yield (profile_outcomes.c.expert_id == expert_id) & profile_outcomes.c.question_id.in_(some)
