"""All outcomes that count as one compact table: what learned routers are fitted on.

A million outcomes as rows of Python objects would take hundreds of MB, and reading them at once would keep everybody else from
the event loop. They are read page by page, straight into arrays of float32.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.evaluation import RunState
from domain.outcomes import NOT_MEASURED, OutcomeTable
from experts_registry.tables import labelled_questions, profile_outcomes, profile_runs

PAGE = 1000
"""Rows read at once: five milliseconds of the event loop."""


@dataclass(frozen=True, slots=True)
class OutcomesVersion:
    """Differs when the outcomes that count differ."""

    newest: int
    """Registry version of the last write."""
    recorded: int
    """The registry versions of all writes, summed up: when a card changes, older outcomes may take the place of newer ones."""
    num_counting: int
    num_rolled_back: int


async def read_version(connection: AsyncConnection) -> OutcomesVersion:
    column = profile_outcomes.c.recorded
    counting = sa.select(sa.func.max(column), sa.func.sum(column), sa.func.count()).where(profile_outcomes.c.counts)
    newest, recorded, num_counting = (await connection.execute(counting)).one()
    rolled_back = sa.select(sa.func.count()).where(profile_runs.c.state == RunState.ROLLED_BACK.value)
    return OutcomesVersion(newest or 0, int(recorded or 0), num_counting, await connection.scalar(rolled_back) or 0)


async def read_latencies(connection: AsyncConnection) -> dict[str, float]:
    """Expert id to the mean latency of its outcomes that count, in milliseconds."""
    statement = (
        sa.select(profile_outcomes.c.expert_id, sa.func.avg(profile_outcomes.c.latency_ms))
        .where(profile_outcomes.c.counts, profile_outcomes.c.latency_ms > 0)
        .group_by(profile_outcomes.c.expert_id)
    )
    return {expert_id: float(mean) for expert_id, mean in await connection.execute(statement)}


async def read_table(connection: AsyncConnection, expert_ids: Sequence[str]) -> OutcomeTable:
    """What *expert_ids* scored on the labelled questions, by question id; 1 for a right answer, 0 for a wrong one.

    Questions that none of them answered are left out, and so are experts that answered none.
    """
    ids, texts, categories, skills = [], [], [], []
    kinds: dict[tuple[str, ...], tuple[str, ...]] = {}  # few, of many questions: each is kept once
    async for row in _questions(connection):
        ids.append(row.id)
        texts.append(row.question)
        categories.append(row.category)
        labels = tuple(row.skills)
        skills.append(kinds.setdefault(labels, labels))
    row_of = {question_id: number for number, question_id in enumerate(ids)}
    columns = {expert_id: await _column(connection, expert_id, row_of) for expert_id in sorted(expert_ids)}

    def assembled() -> OutcomeTable:
        measured = {expert_id: column for expert_id, column in columns.items() if column.num_measured}
        kept = [number for number in range(len(ids)) if any(column.scores[number] >= 0 for column in measured.values())]
        return OutcomeTable(
            questions=tuple(texts[number] for number in kept),
            expert_ids=tuple(measured),
            scores=_side_by_side([column.scores for column in measured.values()], kept),
            question_ids=tuple(ids[number] for number in kept),
            categories=tuple(categories[number] for number in kept),
            skills=tuple(skills[number] for number in kept),
            latency_ms=_side_by_side([column.latency_ms for column in measured.values()], kept),
        )

    return await asyncio.to_thread(assembled)


class _Column:
    """One expert's outcomes on N questions."""

    def __init__(self, num_questions: int) -> None:
        self.scores = array("f", [NOT_MEASURED]) * num_questions
        self.latency_ms = array("f", [NOT_MEASURED]) * num_questions
        self.num_measured = 0


async def _questions(connection: AsyncConnection) -> AsyncIterator[Any]:
    columns = labelled_questions.c
    statement = sa.select(columns.id, columns.question, columns.category, columns.skills).order_by(columns.id).limit(PAGE)
    last: str | None = None
    while True:
        rows = (await connection.execute(statement if last is None else statement.where(columns.id > last))).all()
        for row in rows:
            yield row
        if len(rows) < PAGE:
            return
        last = rows[-1].id


async def _column(connection: AsyncConnection, expert_id: str, row_of: dict[str, int]) -> _Column:
    """From the index by expert and question: one page after the other, each from where the last one ended."""
    columns, column = profile_outcomes.c, _Column(len(row_of))
    statement = (
        sa.select(columns.question_id, columns.correct, columns.latency_ms)
        .where(columns.expert_id == expert_id, columns.counts)
        .order_by(columns.question_id)
        .limit(PAGE)
    )
    last: str | None = None
    while True:
        rows = (await connection.execute(statement if last is None else statement.where(columns.question_id > last))).all()
        for question_id, correct, latency_ms in rows:
            number = row_of.get(question_id)
            if number is not None:  # a question that is gone has no text to learn from
                column.scores[number] = float(correct)
                column.latency_ms[number] = latency_ms or NOT_MEASURED
                column.num_measured += 1
        if len(rows) < PAGE:
            return column
        last = rows[-1].question_id


def _side_by_side(columns: Sequence[array[float]], rows: Sequence[int]) -> array[float]:
    """*columns* as one matrix row by row, of these *rows* only."""
    width = len(columns)
    matrix = array("f", [NOT_MEASURED]) * (width * len(rows))
    for number, column in enumerate(columns):
        matrix[number::width] = array("f", [column[row] for row in rows])
    return matrix
