"""Feedback in the database: a log that every process reads in the same order."""

from __future__ import annotations

import builtins
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict, NotFound
from domain.feedback import Feedback
from experts_registry import state
from experts_registry.database import Database
from experts_registry.tables import feedback, feedback_experts, traces

MAX_PER_TRACE = 16
"""Things that may be said of one request: a few people look at one answer, and each word weighs like an answer of its own."""

_IN_DOCUMENT = ("given", "scores", "expected", "answered_by", "strategy", "router", "skills", "category", "resets")

_GOOD = 0.5
"""From this score on an answer counts as good."""


class FeedbackStore:
    """Satisfies ``orchestrator.feedback.ports.FeedbackLog``. Every method is one transaction."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._database, self._now = database, now

    async def add(self, event: Feedback) -> Feedback:
        """Keep *event*; returned with its place in the log. The same again is returned as it was kept.

        Raises ``Conflict`` when something else was said under its id, or enough was said of its request.
        """
        async with self._database.session() as connection:
            await state.lock(connection)  # the order of the log is the order of these locks
            known = await _select(connection, feedback.c.id == event.id)
            if known:
                return _require_same(known[0], event)
            num = await connection.scalar(sa.select(sa.func.count()).where(feedback.c.trace_id == event.trace_id))
            if event.resets is None and (num or 0) >= MAX_PER_TRACE:
                raise Conflict(
                    f"{MAX_PER_TRACE} things were said of the request {event.request_id!r} already: no more are taken", param="request_id"
                )
            version = await _version(connection) + 1
            kept = replace(event, sequence=version)
            await connection.execute(feedback.insert(), _to_row(kept, changed=version))
            experts = [{"feedback_id": event.id, "expert_id": expert_id} for expert_id in _experts_of(event)]
            if experts:
                await connection.execute(feedback_experts.insert(), experts)
            await _judge(connection, event.trace_id)
        return kept

    async def get(self, feedback_id: str) -> Feedback:
        """Raises ``NotFound``."""
        async with self._database.reading() as connection:
            return await _one(connection, feedback_id)

    async def roll_back(self, feedback_id: str) -> Feedback:
        """It counts for nothing from now on; doing it twice changes nothing. Raises ``NotFound``."""
        async with self._database.session() as connection:
            await state.lock(connection)
            found = await _one(connection, feedback_id)
            if not found.counts:
                return found
            values = {"rolled_back_at": self._now(), "changed": await _version(connection) + 1}
            await connection.execute(feedback.update().where(feedback.c.id == feedback_id).values(**values))
            await _judge(connection, found.trace_id)
            return await _one(connection, feedback_id)

    async def version(self) -> int:
        """Grows with every event and every rollback."""
        async with self._database.reading() as connection:
            return await _version(connection)

    async def newest(self, limit: int) -> tuple[int, Sequence[Feedback]]:
        """The version, and the last *limit* events that count, oldest first."""
        async with self._database.reading() as connection:
            found = await _select(connection, feedback.c.rolled_back_at.is_(None), limit=limit)
            return await _version(connection), found[::-1]

    async def since(self, version: int) -> tuple[int, Sequence[Feedback]]:
        """The version, and what was added or taken back since *version*, by place in the log."""
        async with self._database.reading() as connection:
            now = await _version(connection)
            return now, (await _select(connection, feedback.c.changed > version))[::-1] if now > version else []

    async def list(
        self,
        *,
        request_id: str | None = None,
        expert_id: str | None = None,
        rolled_back: bool | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> builtins.list[Feedback]:
        """Events that meet every filter given, newest first; those before the place *before* in the log."""
        conditions: builtins.list[sa.ColumnElement[bool]] = []
        if request_id is not None:
            conditions.append(feedback.c.request_id == request_id)
        if expert_id is not None:
            of_expert = sa.select(feedback_experts.c.feedback_id).where(feedback_experts.c.expert_id == expert_id)
            conditions.append(feedback.c.id.in_(of_expert))
        if rolled_back is not None:
            conditions.append(feedback.c.rolled_back_at.is_not(None) if rolled_back else feedback.c.rolled_back_at.is_(None))
        if before is not None:
            conditions.append(feedback.c.sequence < before)
        async with self._database.reading() as connection:
            return await _select(connection, *conditions, limit=limit)

    async def delete_before(self, timestamp: float) -> int:
        """Forget what was said before *timestamp* (seconds since the epoch); returns how many. The newest stays: it holds the version."""
        async with self._database.session() as connection:
            await state.lock(connection)
            newest = sa.select(sa.func.max(feedback.c.changed)).scalar_subquery()
            old = (feedback.c.created_at < timestamp) & (feedback.c.changed < newest)
            result = await connection.execute(feedback.delete().where(old))
        return result.rowcount


async def _judge(connection: AsyncConnection, trace_id: str) -> None:
    """Write beside a trace what the last feedback that counts says of its answer, so that traces can be found by it."""
    last = await _select(connection, feedback.c.trace_id == trace_id, feedback.c.rolled_back_at.is_(None), limit=1)
    score = verdict(last[0]) if last else None
    judged = None if score is None else "good" if score >= _GOOD else "bad"
    await connection.execute(traces.update().where(traces.c.id == trace_id).values(judged=judged))


def verdict(event: Feedback) -> float | None:
    """What *event* says of the answer, in [0, 1]: of the expert whose words it was, else of all that it speaks of."""
    if not event.scores:
        return None
    return event.scores.get(event.answered_by or "", sum(event.scores.values()) / len(event.scores))


async def _version(connection: AsyncConnection) -> int:
    return int(await connection.scalar(sa.select(sa.func.max(feedback.c.changed))) or 0)


async def _one(connection: AsyncConnection, feedback_id: str) -> Feedback:
    found = await _select(connection, feedback.c.id == feedback_id)
    if not found:
        raise NotFound(f"there is no feedback {feedback_id!r} (any more)", param="id")
    return found[0]


async def _select(connection: AsyncConnection, *conditions: sa.ColumnElement[bool], limit: int | None = None) -> builtins.list[Feedback]:
    """Newest first."""
    statement = sa.select(feedback).where(*conditions).order_by(feedback.c.sequence.desc()).limit(limit)
    return [_from_row(row) for row in (await connection.execute(statement)).mappings()]


def _require_same(known: Feedback, event: Feedback) -> Feedback:
    if json.dumps(known.given, sort_keys=True) == json.dumps(event.given, sort_keys=True):
        return known
    raise Conflict(
        f"something else was said of the request {event.request_id!r} before ({json.dumps(known.given)}): "
        "roll that back, or say this with an `id` of its own",
        param="id",
    )


def _experts_of(event: Feedback) -> builtins.list[str]:
    return list(dict.fromkeys([*event.scores, *([event.resets] if event.resets else [])]))


def _to_row(event: Feedback, *, changed: int) -> dict[str, Any]:
    return {
        "id": event.id,
        "sequence": event.sequence,
        "changed": changed,
        "trace_id": event.trace_id,
        "request_id": event.request_id,
        "created_at": event.created_at,
        "rolled_back_at": event.rolled_back_at,
        "document": {name: getattr(event, name) for name in _IN_DOCUMENT if getattr(event, name)},
        "encoder_id": event.encoder_id,
        "vector": event.vector,
    }


def _from_row(row: sa.RowMapping) -> Feedback:
    document = dict(row["document"])
    document["skills"] = tuple((skill, weight) for skill, weight in document.get("skills", ()))
    known = {name: document[name] for name in _IN_DOCUMENT if name in document}
    return Feedback(
        id=row["id"],
        request_id=row["request_id"],
        trace_id=row["trace_id"],
        created_at=row["created_at"],
        sequence=row["sequence"],
        rolled_back_at=row["rolled_back_at"],
        encoder_id=row["encoder_id"],
        vector=row["vector"],
        **{"given": {}, **known},
    )
