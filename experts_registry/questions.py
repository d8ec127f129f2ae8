"""Labelled questions, and the vectors that encoders gave them."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import InvalidRequest, NotFound
from domain.nearest import did_you_mean
from domain.skills import LabelledQuestion
from experts_registry import references, state
from experts_registry.database import Database
from experts_registry.tables import labelled_questions, question_vectors

T = TypeVar("T")

Require = Callable[[LabelledQuestion | None], object]
"""Raises when the stored question is not what the caller thinks. Asked while nobody else can change it."""


def _anything(_: LabelledQuestion | None) -> None: ...


CHUNK = 500
"""Rows in one statement: SQLite takes at most 32,766 parameters, PostgreSQL 32,767."""
_MAX_ID = 128
_MAX_SKILL = 128


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """*items* in pieces that fit into one statement."""
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _to_row(question: LabelledQuestion) -> dict[str, Any]:
    return {
        "id": question.id,
        "question": question.question,
        "answer": question.answer,
        "category": question.category,
        "skills": list(question.skills),
        "options": list(question.options),
        "grader": question.grader,
        "history": [dict(message) for message in question.history],
    }


def _from_row(row: sa.RowMapping) -> LabelledQuestion:
    return LabelledQuestion(
        id=row["id"],
        question=row["question"],
        answer=row["answer"],
        category=row["category"],
        skills=tuple(row["skills"]),
        options=tuple(row["options"]),
        grader=row["grader"],
        history=tuple(row["history"]),
    )


async def read_questions(connection: AsyncConnection) -> dict[str, LabelledQuestion]:
    """Every labelled question by id, in order of the ids."""
    rows = (await connection.execute(sa.select(labelled_questions))).mappings()
    return {question.id: question for question in sorted((_from_row(row) for row in rows), key=lambda q: q.id)}


async def _read_some(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, LabelledQuestion]:
    """Those of *ids* that are there."""
    found: dict[str, LabelledQuestion] = {}
    for some in chunks(ids):
        rows = (await connection.execute(sa.select(labelled_questions).where(labelled_questions.c.id.in_(some)))).mappings()
        found |= {row["id"]: _from_row(row) for row in rows}
    return found


async def write_questions(connection: AsyncConnection, questions: Sequence[LabelledQuestion], *, source: str, now: float) -> int:
    """Add or overwrite *questions* by id and return how many are new or different.

    The vectors of a question whose wording changes are dropped: they belong to the old wording. Raises ``InvalidRequest`` for
    a question that cannot be stored, or whose skill looks like a misspelling of a known one.
    """
    _require_storable(questions)
    wanted = {question.id: question for question in questions}
    stored = await _read_some(connection, list(wanted))
    changed = [question for question in wanted.values() if stored.get(question.id) != question]
    replaced = [question.id for question in changed if question.id in stored]
    reworded = [i for i in replaced if _wording(stored[i]) != _wording(wanted[i])]
    for some in chunks(reworded):
        await connection.execute(question_vectors.delete().where(question_vectors.c.question_id.in_(some)))
    for question in changed:
        if question.id in stored:
            row = {**_to_row(question), "source": source, "updated_at": now}
            await connection.execute(labelled_questions.update().where(labelled_questions.c.id == question.id).values(row))
    new = [{**_to_row(question), "source": source, "updated_at": now} for question in changed if question.id not in stored]
    for rows in chunks(new):
        await connection.execute(labelled_questions.insert(), list(rows))
    await references.add_skills_of_questions(connection, changed)
    return len(changed)


class QuestionStore:
    """Labelled questions by id, and one vector per question and encoder. Changes of questions bump both versions."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    async def list(self) -> builtins.list[LabelledQuestion]:
        """Every labelled question, by id."""
        async with self._database.reading() as connection:
            return list((await read_questions(connection)).values())

    async def add(self, questions: Sequence[LabelledQuestion], *, source: str) -> int:
        """Add or overwrite by id, all or none; returns how many were new or different.

        Skills that they name and nobody knew become known. *source* says where they are from (a file's name). Raises
        ``InvalidRequest`` that names the question which cannot be stored, or has what looks like a misspelling of a known skill.
        """
        async with self._database.session() as connection:
            await state.lock(connection)
            num_changed = await write_questions(connection, questions, source=source, now=self._now())
            if num_changed:
                await state.bump(connection, questions=True)
        return num_changed

    async def put(self, question: LabelledQuestion, *, source: str, require: Require = _anything) -> bool:
        """Add or overwrite one question; whether it is new. Raises what *require* raises about the one that is there now
        (None: there is none), ``InvalidRequest`` when it cannot be stored."""
        async with self._database.session() as connection:
            await state.lock(connection)
            before = await _find(connection, question.id)
            require(before)
            if await write_questions(connection, [question], source=source, now=self._now()):
                await state.bump(connection, questions=True)
        return before is None

    async def edit(self, question_id: str, change: Callable[[LabelledQuestion], LabelledQuestion], *, source: str) -> LabelledQuestion:
        """Put what *change* makes of a question in its place and return it. Nobody else can change it in between; when *change*
        raises, nothing is changed. Raises ``NotFound``, ``InvalidRequest`` when it cannot be stored."""
        async with self._database.session() as connection:
            await state.lock(connection)
            after = change(await _one(connection, question_id))
            if await write_questions(connection, [after], source=source, now=self._now()):
                await state.bump(connection, questions=True)
        return after

    async def remove(self, question_id: str, *, require: Require = _anything) -> None:
        """Remove one question. Raises ``NotFound``, and what *require* raises about the question as it is now."""
        async with self._database.session() as connection:
            await state.lock(connection)
            require(await _one(connection, question_id))
            await connection.execute(labelled_questions.delete().where(labelled_questions.c.id == question_id))
            await state.bump(connection, questions=True)

    async def vectors(self, encoder_id: str) -> dict[str, bytes]:
        """Question id to its vector (float32, little-endian) by this encoder. Questions that have none are not in it."""
        statement = sa.select(question_vectors.c.question_id, question_vectors.c.vector).where(question_vectors.c.encoder_id == encoder_id)
        async with self._database.reading() as connection:
            return {row.question_id: bytes(row.vector) for row in await connection.execute(statement)}

    async def save_vectors(self, encoder_id: str, vectors: Mapping[str, bytes], *, questions_version: int | None = None) -> int:
        """Keep vectors for the next start; returns how many were kept.

        A question that is gone meanwhile is passed over. With *questions_version*, nothing is kept when the questions are
        no longer at that version, since a wording may have changed while it was encoded.
        """
        async with self._database.session() as connection:
            versions = await state.lock(connection)
            if questions_version is not None and questions_version != versions.questions:
                return 0
            there = set((await connection.scalars(sa.select(labelled_questions.c.id))).all())
            ids = sorted(there & vectors.keys())
            for some in chunks(ids):
                old = (question_vectors.c.encoder_id == encoder_id) & question_vectors.c.question_id.in_(some)
                await connection.execute(question_vectors.delete().where(old))
                rows = [{"encoder_id": encoder_id, "question_id": i, "vector": vectors[i]} for i in some]
                await connection.execute(question_vectors.insert(), rows)
        return len(ids)


async def _find(connection: AsyncConnection, question_id: str) -> LabelledQuestion | None:
    statement = sa.select(labelled_questions).where(labelled_questions.c.id == question_id)
    row = (await connection.execute(statement)).mappings().one_or_none()
    return None if row is None else _from_row(row)


async def _one(connection: AsyncConnection, question_id: str) -> LabelledQuestion:
    found = await _find(connection, question_id)
    if found is None:
        known = (await connection.scalars(sa.select(labelled_questions.c.id))).all()
        raise NotFound(f"there is no labelled question {question_id!r}; {did_you_mean(question_id, sorted(known))}", param="id")
    return found


def _wording(question: LabelledQuestion) -> tuple[Any, ...]:
    return question.question, question.options, question.history


def _require_storable(questions: Sequence[LabelledQuestion]) -> None:
    for question in questions:
        if not 0 < len(question.id) <= _MAX_ID:
            raise InvalidRequest(f"the id of a labelled question has 1 to {_MAX_ID} characters; {question.id[:40]!r}… does not", param="id")
        for label in question.labels:
            if not 0 < len(label) <= _MAX_SKILL:
                raise InvalidRequest(
                    f"question {question.id!r}: a skill or category has 1 to {_MAX_SKILL} characters; {label[:40]!r} does not",
                    param="skills",
                )
        texts = (question.id, question.question, question.answer, question.category or "", *question.labels)
        if any("\0" in text for text in texts):
            raise InvalidRequest(f"question {question.id!r} holds a NUL character, which no text may hold: remove it", param="question")
