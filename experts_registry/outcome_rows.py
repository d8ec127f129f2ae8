"""Outcomes and their counts as rows, on a connection that holds the registry's lock.

Of all outcomes of one expert on one question, as its card is now, the one recorded last counts, so that runs that overlap count each
question once, and what an older card answered counts for nothing. ``profile_counts`` is changed by the difference that a write makes,
never summed up anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
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
Fingerprints = Mapping[str, str]
"""Expert id to the fingerprint of its card as it is now."""
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
        "expert_fingerprint": outcome.expert_fingerprint,
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
        expert_fingerprint=row["expert_fingerprint"],
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


async def insert(
    connection: AsyncConnection, run_id: str, outcomes: Sequence[QuestionOutcome], *, recorded: int, cards: Fingerprints
) -> None:
    """Write *outcomes*, at most one per expert and question, in place of what the run had for the same. *cards*: of the experts that are
    there, for outcomes that do not tell of which card they are.

    An answer counts from now on instead of every earlier one. An error counts for nothing, and replaces no answer; no more does an
    answer of an older card.
    """
    told = [
        outcome if outcome.expert_fingerprint is not None else replace(outcome, expert_fingerprint=cards.get(outcome.expert_id))
        for outcome in outcomes
    ]
    answers = [outcome for outcome in told if outcome.error is None and is_of_today(outcome, cards)]
    pairs = _pairs(answers)
    before = await counting(connection, pairs)
    for which in _conditions(pairs):
        await connection.execute(profile_outcomes.update().where(which, profile_outcomes.c.counts).values(counts=False))
    for which in _conditions(pairs):
        await connection.execute(profile_outcomes.delete().where(which, profile_outcomes.c.run_id == run_id))
    await _write(connection, [{**to_row(outcome, run_id), "recorded": recorded, "counts": True} for outcome in answers])
    outdated = [outcome for outcome in told if outcome.error is None and not is_of_today(outcome, cards)]
    await _insert_behind(connection, run_id, outdated, recorded, profile_outcomes.c.counts)
    errors = [outcome for outcome in told if outcome.error is not None]
    await _insert_behind(connection, run_id, errors, recorded, profile_outcomes.c.error.is_(None))
    await _add(connection, tally(answers, minus=before))


def is_of_today(outcome: QuestionOutcome, cards: Fingerprints) -> bool:
    """Whether it speaks of its expert as it is now; of one that is gone, everything does until it comes back."""
    return cards.get(outcome.expert_id) in (None, outcome.expert_fingerprint)


async def _insert_behind(
    connection: AsyncConnection, run_id: str, outcomes: Sequence[QuestionOutcome], recorded: int, better: sa.ColumnElement[bool]
) -> None:
    """Write *outcomes*, which count for nothing, where the run has nothing *better* for the same expert and question."""
    taken: set[Pair] = set()
    for which in _conditions(_pairs(outcomes)):
        of_run = (which, profile_outcomes.c.run_id == run_id)
        taken |= _pairs(await select(connection, *of_run, better))
        await connection.execute(profile_outcomes.delete().where(*of_run, sa.not_(better)))
    kept = [outcome for outcome in outcomes if (outcome.expert_id, outcome.question_id) not in taken]
    await _write(connection, [{**to_row(outcome, run_id), "recorded": recorded, "counts": False} for outcome in kept])


async def _write(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    for some in chunks(rows):
        await connection.execute(profile_outcomes.insert(), list(some))


async def retire(connection: AsyncConnection, run_id: str, *, cards: Fingerprints) -> None:
    """Let the outcomes of a run count no more; where another run has asked the same, its newest answer counts again."""
    of_run = profile_outcomes.c.run_id == run_id
    retired = await select(connection, of_run, profile_outcomes.c.counts)
    await connection.execute(profile_outcomes.update().where(of_run).values(counts=False, recorded=RETIRED))
    pairs = _pairs(retired)
    for expert_id in sorted({expert_id for expert_id, _ in pairs}):
        for which in _conditions({pair for pair in pairs if pair[0] == expert_id}):
            await _count_newest(connection, which, cards.get(expert_id))
    successors = await counting(connection, pairs)
    await _add(connection, tally(successors, minus=retired))


async def recount(connection: AsyncConnection, expert_id: str, fingerprint: str) -> int:
    """Let of the outcomes of *expert_id* those count that are of the card with this *fingerprint*; how many questions are answered by
    older cards alone."""
    own = profile_outcomes.c.expert_id == expert_id
    if await connection.scalar(sa.select(sa.literal(1)).where(own).limit(1)) is None:
        return 0
    before = await _counted(connection, expert_id)
    await connection.execute(profile_outcomes.update().where(own, profile_outcomes.c.counts).values(counts=False))
    await _count_newest(connection, own, fingerprint)
    await _add(connection, tally(await _counted(connection, expert_id), minus=before))
    return (await read_outdated(connection, own)).get(expert_id, 0)


async def _count_newest(connection: AsyncConnection, which: sa.ColumnElement[bool], fingerprint: str | None) -> None:
    """Of the answers that *which* names, all of one expert, none of which counts: let the newest for each question count that is of the
    card with this *fingerprint*; None: of any card."""
    columns = profile_outcomes.c
    able = [which, columns.recorded != RETIRED, columns.error.is_(None)]
    if fingerprint is not None:
        able.append(columns.expert_fingerprint == fingerprint)
    newest = sa.select(columns.question_id, sa.func.max(columns.recorded).label("recorded")).where(*able).group_by(columns.question_id)
    is_newest = sa.tuple_(columns.question_id, columns.recorded).in_(sa.select(newest.subquery()))
    await connection.execute(profile_outcomes.update().where(*able, is_newest).values(counts=True))


async def _counted(connection: AsyncConnection, expert_id: str) -> list[QuestionOutcome]:
    """The outcomes of *expert_id* that count, as far as counting needs them: without their answers, which may be long."""
    columns = profile_outcomes.c
    asked = sa.select(columns.question_id, columns.skills, columns.category, columns.correct)
    rows = await connection.execute(asked.where(columns.expert_id == expert_id, columns.counts))
    return [QuestionOutcome(expert_id, row.question_id, tuple(row.skills), row.category, row.correct) for row in rows]


async def read_outdated(connection: AsyncConnection, *conditions: sa.ColumnElement[bool]) -> dict[str, int]:
    """Expert id to the number of questions that were answered by older cards of it alone; experts without any are left out."""
    columns, others = profile_outcomes.c, profile_outcomes.alias()
    counts_now = sa.exists().where(others.c.expert_id == columns.expert_id, others.c.question_id == columns.question_id, others.c.counts)
    statement = (
        sa.select(columns.expert_id, sa.func.count(columns.question_id.distinct()).label("num"))
        .where(*conditions, sa.not_(columns.counts), columns.error.is_(None), columns.recorded != RETIRED, sa.not_(counts_now))
        .group_by(columns.expert_id)
    )
    return {row.expert_id: row.num for row in await connection.execute(statement)}


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
