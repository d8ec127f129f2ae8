"""Solved problems in the database: the memory of each tenant."""

from __future__ import annotations

import builtins
import hashlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import InvalidRequest, NotFound
from domain.memory import MAX_PROBLEM_CHARS, MAX_SOLUTION_CHARS, MemorySource, SolvedProblem
from experts_registry import state
from experts_registry.database import Database
from experts_registry.questions import chunks
from experts_registry.tables import memory_tenants, solved_problems, traces

PREFIX = "mem-"
_NEW = ("id", "tenant", "question", "answer", "source", "expert_id", "trace_id", "feedback_id", "created_at", "used_at")


class MemoryStore:
    """Satisfies ``routers.problem_memory.ProblemSource``. Every method is one transaction; every change of what can be found gives its
    tenant a new version.

    A tenant has at most *max_problems*: where one more comes, that leaves which was shown longest ago, or kept longest ago without ever
    having been shown.
    """

    def __init__(self, database: Database, *, max_problems: int = 1000, now: Callable[[], float] = time.time) -> None:
        self._database, self._max_problems, self._now = database, max_problems, now

    async def add(self, problems: Sequence[SolvedProblem]) -> builtins.list[SolvedProblem]:
        """Keep *problems*, all or none; as they were kept. One whose question is known, but for case and white space, takes the place of
        what was known. With the same answer it changes nothing, unless somebody enters by hand what feedback had let in: then it
        stays, whatever becomes of that feedback.

        Ids and places are given here. Raises ``InvalidRequest`` for one that is empty or too long.
        """
        for problem in problems:
            require_keepable(problem)
        kept: builtins.list[SolvedProblem] = []
        async with self._database.session() as connection:
            await state.lock(connection)  # the order of versions is the order of these locks
            version = await _version(connection)
            changed: set[str] = set()
            for problem in problems:
                digest = digest_of(problem.question)
                known = await _select(connection, solved_problems.c.tenant == problem.tenant, solved_problems.c.digest == digest)
                if known and known[0].answer == problem.answer:
                    kept.append(await _vouched_again(connection, known[0], problem))
                    continue
                version += 1
                new = replace(problem, id=f"{PREFIX}{uuid.uuid4().hex}", sequence=version, used_at=None, encoder_id=None, vector=None)
                if known:
                    await connection.execute(solved_problems.delete().where(solved_problems.c.id == known[0].id))
                await connection.execute(solved_problems.insert(), _to_row(new, digest))
                kept.append(new)
                changed.add(new.tenant)
            for tenant in changed:
                await self._make_room(connection, tenant)
            await _touch(connection, changed)
        return kept

    async def get(self, problem_id: str) -> SolvedProblem:
        """Raises ``NotFound``."""
        async with self._database.reading() as connection:
            return await _one(connection, problem_id)

    async def list(self, *, tenant: str | None = None, limit: int = 50, before: int | None = None) -> builtins.list[SolvedProblem]:
        """Problems of *tenant* (None: of all), the last kept first; those before the place *before*."""
        conditions: builtins.list[sa.ColumnElement[bool]] = [] if tenant is None else [solved_problems.c.tenant == tenant]
        if before is not None:
            conditions.append(solved_problems.c.sequence < before)
        async with self._database.reading() as connection:
            return await _select(connection, *conditions, limit=limit)

    async def delete(self, problem_id: str) -> None:
        """Raises ``NotFound``."""
        async with self._database.session() as connection:
            await state.lock(connection)
            await _one(connection, problem_id)
            await self._delete(connection, solved_problems.c.id == problem_id)

    async def clear(self, tenant: str) -> int:
        """Forget all of *tenant*'s; returns how many there were."""
        async with self._database.session() as connection:
            await state.lock(connection)
            return await self._delete(connection, solved_problems.c.tenant == tenant)

    async def forget(self, *, feedback_id: str | None = None, trace_id: str | None = None) -> int:
        """Forget what was kept because of that feedback, or of that request; returns how many."""
        column, value = (solved_problems.c.feedback_id, feedback_id) if feedback_id is not None else (solved_problems.c.trace_id, trace_id)
        if value is None:
            return 0
        async with self._database.session() as connection:
            if await connection.scalar(sa.select(solved_problems.c.id).where(column == value).limit(1)) is None:
                return 0
            await state.lock(connection)
            return await self._delete(connection, column == value)

    async def forget_requests_before(self, timestamp: float) -> int:
        """Forget what was solved in requests that began before *timestamp* (seconds since the epoch) and are still in the traces; returns
        how many."""
        old = sa.select(traces.c.id).where(traces.c.started_at < timestamp)
        async with self._database.session() as connection:
            await state.lock(connection)
            return await self._delete(connection, solved_problems.c.trace_id.in_(old))

    async def disowned(self, problem: SolvedProblem) -> int:
        """Somebody says that this very answer is wrong: what feedback on another request had let in goes; returns how many."""
        same = (
            (solved_problems.c.tenant == problem.tenant)
            & (solved_problems.c.digest == digest_of(problem.question))
            & (solved_problems.c.answer == problem.answer)
            & (solved_problems.c.source == "feedback")
        )
        async with self._database.session() as connection:
            if await connection.scalar(sa.select(solved_problems.c.id).where(same)) is None:
                return 0
            await state.lock(connection)
            return await self._delete(connection, same)

    async def changes(self, since: int) -> tuple[int, Sequence[str]]:
        """The version, and the tenants whose problems have changed after the version *since*, the latest last."""
        statement = sa.select(memory_tenants.c.tenant, memory_tenants.c.version).where(memory_tenants.c.version > since)
        async with self._database.reading() as connection:
            rows = (await connection.execute(statement.order_by(memory_tenants.c.version))).all()
        return (rows[-1].version, [row.tenant for row in rows]) if rows else (since, [])

    async def of_tenant(self, tenant: str) -> Sequence[SolvedProblem]:
        """All of them, with their vectors, as they were kept."""
        async with self._database.reading() as connection:
            return (await _select(connection, solved_problems.c.tenant == tenant))[::-1]

    async def save_vectors(self, encoder_id: str, vectors: Mapping[str, bytes]) -> None:
        """By the problem's id, float16. Problems that are gone are left out."""
        statement = (
            solved_problems.update()
            .where(solved_problems.c.id == sa.bindparam("of_id"))
            .values(encoder_id=encoder_id, vector=sa.bindparam("new_vector", type_=solved_problems.c.vector.type))
        )
        await self._update(statement, [{"of_id": problem_id, "new_vector": vector} for problem_id, vector in vectors.items()])

    async def used(self, moments: Mapping[str, float]) -> None:
        """When problems were shown (seconds since the epoch), by id. No change of what can be found."""
        statement = (
            solved_problems.update().where(solved_problems.c.id == sa.bindparam("of_id")).values(used_at=sa.bindparam("new_used_at"))
        )
        await self._update(statement, [{"of_id": problem_id, "new_used_at": at} for problem_id, at in sorted(moments.items())])

    async def _update(self, statement: sa.Update, values: Sequence[Mapping[str, Any]]) -> None:
        for some in chunks(values):
            async with self._database.session() as connection:
                await state.lock(connection)  # who writes several rows and who deletes them would else wait for one another (a deadlock)
                await connection.execute(statement, [dict(value) for value in some])

    async def _make_room(self, connection: AsyncConnection, tenant: str) -> None:
        of_tenant = solved_problems.c.tenant == tenant
        num = int(await connection.scalar(sa.select(sa.func.count()).select_from(solved_problems).where(of_tenant)) or 0)
        if num <= self._max_problems:
            return
        seen = sa.func.coalesce(solved_problems.c.used_at, solved_problems.c.created_at)
        oldest = sa.select(solved_problems.c.id).where(of_tenant).order_by(seen, solved_problems.c.sequence).limit(num - self._max_problems)
        for ids in chunks((await connection.scalars(oldest)).all()):
            await connection.execute(solved_problems.delete().where(solved_problems.c.id.in_(ids)))

    async def _delete(self, connection: AsyncConnection, condition: sa.ColumnElement[bool]) -> int:
        tenants = set((await connection.scalars(sa.select(solved_problems.c.tenant).where(condition).distinct())).all())
        result = await connection.execute(solved_problems.delete().where(condition))
        await _touch(connection, tenants)
        return result.rowcount


def digest_of(question: str) -> str:
    """Alike for questions that differ in case and white space only."""
    return hashlib.sha256(" ".join(question.casefold().split()).encode("utf-8", "surrogatepass")).hexdigest()


def require_keepable(problem: SolvedProblem) -> None:
    """Raise ``InvalidRequest`` for a problem that is empty or too long, or whose answer is."""
    for name, text, most in (("question", problem.question, MAX_PROBLEM_CHARS), ("answer", problem.answer, MAX_SOLUTION_CHARS)):
        if not text.strip():
            raise InvalidRequest(f"{name} is empty", param=name)
        if len(text) > most:
            raise InvalidRequest(f"{name} has {len(text):,} letters, and {most:,} are kept at most", param=name)


async def _vouched_again(connection: AsyncConnection, known: SolvedProblem, problem: SolvedProblem) -> SolvedProblem:
    """*known*, which is *problem* to the letter, as it is kept from now on. What is found does not change."""
    if known.source == problem.source or problem.source != "import":
        return known
    whose: dict[str, Any] = {"source": problem.source, "feedback_id": None, "trace_id": None}
    await connection.execute(solved_problems.update().where(solved_problems.c.id == known.id).values(**whose))
    return replace(known, **whose)


async def _version(connection: AsyncConnection) -> int:
    """The last one that was given, to a problem or to a tenant."""
    of_tenants = await connection.scalar(sa.select(sa.func.max(memory_tenants.c.version)))
    of_problems = await connection.scalar(sa.select(sa.func.max(solved_problems.c.sequence)))
    return max(int(of_tenants or 0), int(of_problems or 0))


async def _touch(connection: AsyncConnection, tenants: set[str]) -> None:
    """Their problems have changed now. On a connection that holds the registry's lock."""
    version = await _version(connection)
    for tenant in sorted(tenants):
        version += 1
        touched = await connection.execute(memory_tenants.update().where(memory_tenants.c.tenant == tenant).values(version=version))
        if not touched.rowcount:
            await connection.execute(memory_tenants.insert(), {"tenant": tenant, "version": version})


async def _one(connection: AsyncConnection, problem_id: str) -> SolvedProblem:
    found = await _select(connection, solved_problems.c.id == problem_id)
    if not found:
        raise NotFound(f"there is no solved problem {problem_id!r} (any more)", param="id")
    return found[0]


async def _select(
    connection: AsyncConnection, *conditions: sa.ColumnElement[bool], limit: int | None = None
) -> builtins.list[SolvedProblem]:
    """The last kept first."""
    statement = sa.select(solved_problems).where(*conditions).order_by(solved_problems.c.sequence.desc()).limit(limit)
    return [_from_row(row) for row in (await connection.execute(statement)).mappings()]


def _to_row(problem: SolvedProblem, digest: str) -> dict[str, Any]:
    return {
        **{name: getattr(problem, name) for name in _NEW},
        "digest": digest,
        "sequence": problem.sequence,
        "skills": builtins.list(problem.skills),
    }


def _from_row(row: sa.RowMapping) -> SolvedProblem:
    return SolvedProblem(
        **{name: row[name] for name in _NEW if name != "source"},
        source=cast(MemorySource, row["source"]),
        sequence=row["sequence"],
        skills=tuple(row["skills"]),
        encoder_id=row["encoder_id"],
        vector=row["vector"],
    )
