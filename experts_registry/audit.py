"""The audit log in the database. Nothing changes or deletes an entry."""

from __future__ import annotations

import builtins
from dataclasses import asdict
from urllib.parse import quote

import sqlalchemy as sa

from domain.audit import AuditEntry
from domain.errors import NotFound
from experts_registry.database import Database
from experts_registry.tables import audit_log
from experts_registry.trace_rows import storable

MAX_TARGET = 256
"""Letters of an address by which entries are found: ids are shorter."""


class AuditLog:
    """Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, entry: AuditEntry) -> None:
        """Raises ``StorageError``."""
        row = {
            **asdict(entry),
            "actor": storable(entry.actor, 64),
            "before": entry.before,
            "after": entry.after,
            "target": storable(_target_of(entry), MAX_TARGET),
        }
        async with self._database.session() as connection:
            await connection.execute(audit_log.insert(), row)

    async def list(
        self,
        *,
        actor: str | None = None,
        path: str | None = None,
        about: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> builtins.list[AuditEntry]:
        """The newest *limit* entries that meet every filter, newest first; *path* is how the address begins, *about* all of it;
        what was made is found by the address that it got. The page behind the entry
        *after*; raises ``NotFound`` when there is none."""
        conditions: builtins.list[sa.ColumnElement[bool]] = []
        if actor is not None:
            conditions.append(audit_log.c.actor == actor)
        if path is not None:
            conditions.append(audit_log.c.path.startswith(path, autoescape=True))
        if about is not None:
            conditions.append(audit_log.c.target == storable(about, MAX_TARGET))
        if since is not None:
            conditions.append(audit_log.c.at >= since)
        if until is not None:
            conditions.append(audit_log.c.at < until)
        async with self._database.reading() as connection:
            if after is not None:
                last = (await connection.execute(sa.select(audit_log.c.at).where(audit_log.c.id == after))).one_or_none()
                if last is None:
                    raise NotFound(f"there is no audit entry {after!r}", param="after")
                conditions.append(sa.tuple_(audit_log.c.at, audit_log.c.id) < sa.tuple_(sa.literal(last.at), sa.literal(after)))
            columns = [column for column in audit_log.c if column is not audit_log.c.target]
            statement = sa.select(*columns).where(*conditions).order_by(audit_log.c.at.desc(), audit_log.c.id.desc()).limit(limit)
            return [AuditEntry(**row) for row in (await connection.execute(statement)).mappings()]


def _target_of(entry: AuditEntry) -> str:
    """The address of what the entry is about."""
    made = entry.after.get("id") if entry.method == "POST" and entry.status == 201 and isinstance(entry.after, dict) else None
    return entry.path if made is None else f"{entry.path}/{quote(str(made), safe='')}"
