"""Rows with an id and a version: the part that cards, strategies and keys share, on a connection that a store has opened."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict, NotFound, PreconditionFailed
from domain.experts import ExpertCard
from domain.keys import ApiKey
from domain.nearest import did_you_mean
from domain.strategy import Strategy
from experts_registry.questions import chunks
from experts_registry.tables import retired_versions

T = TypeVar("T", ExpertCard, Strategy, ApiKey)


@dataclass(frozen=True, slots=True)
class VersionedTable(Generic[T]):
    """One kind of thing in one table.

    A version never comes twice under one id: a change adds one, and what was deleted and is made again goes on from its
    last version. So an ``If-Match`` can never name the wrong state.
    """

    kind: str
    """In messages: "expert"."""
    table: sa.Table
    to_row: Callable[[T], dict[str, Any]]
    from_row: Callable[[sa.RowMapping], T]

    async def all(self, connection: AsyncConnection) -> list[T]:
        """Everything there is, by id."""
        rows = (await connection.execute(sa.select(self.table))).mappings()
        return sorted((self.from_row(row) for row in rows), key=lambda item: item.id)

    async def some(self, connection: AsyncConnection, item_ids: Collection[str]) -> list[T]:
        """Those of *item_ids* that there are, by id."""
        found: list[T] = []
        for ids in chunks(sorted(set(item_ids))):
            rows = (await connection.execute(sa.select(self.table).where(self.table.c.id.in_(ids)))).mappings()
            found += [self.from_row(row) for row in rows]
        return sorted(found, key=lambda item: item.id)

    async def one(self, connection: AsyncConnection, item_id: str) -> T:
        """Raises ``NotFound``, with the nearest id, when there is none."""
        statement = sa.select(self.table).where(self.table.c.id == item_id)
        row = (await connection.execute(statement)).mappings().one_or_none()
        if row is None:
            known = (await connection.scalars(sa.select(self.table.c.id))).all()
            raise NotFound(f"there is no {self.kind} {item_id!r}; {did_you_mean(item_id, sorted(known))}", param="id")
        return self.from_row(row)

    async def insert(self, connection: AsyncConnection, item: T) -> T:
        """Raises ``Conflict`` when the id is taken."""
        taken = await connection.scalar(sa.select(self.table.c.id).where(self.table.c.id == item.id))
        if taken is not None:
            raise Conflict(f"the {self.kind} id {item.id!r} is taken: change that one, or choose another id", param="id")
        retired = await connection.scalar(sa.select(retired_versions.c.version).where(*self._retired(item.id)))
        stored = replace(item, version=(retired or 0) + 1)
        await connection.execute(self.table.insert(), self.to_row(stored))
        return stored

    async def update(self, connection: AsyncConnection, item: T, if_version: int | None) -> T:
        """Raises ``NotFound``, or ``PreconditionFailed`` when the stored version is not *if_version*."""
        current = await self.one(connection, item.id)
        self._require_version(current, if_version)
        stored = replace(item, version=current.version + 1)
        await connection.execute(self.table.update().where(self.table.c.id == item.id).values(self.to_row(stored)))
        return stored

    async def delete(self, connection: AsyncConnection, item_id: str, if_version: int | None) -> None:
        """Raises like ``update``."""
        current = await self.one(connection, item_id)
        self._require_version(current, if_version)
        await connection.execute(self.table.delete().where(self.table.c.id == item_id))
        await connection.execute(retired_versions.delete().where(*self._retired(item_id)))
        await connection.execute(retired_versions.insert(), {"kind": self.kind, "id": item_id, "version": current.version})

    def _retired(self, item_id: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
        return retired_versions.c.kind == self.kind, retired_versions.c.id == item_id

    def _require_version(self, current: T, if_version: int | None) -> None:
        if if_version is not None and if_version != current.version:
            raise PreconditionFailed(
                f"{self.kind} {current.id!r} is at version {current.version}, not {if_version}: "
                "somebody changed it meanwhile; read it again and repeat your change",
            )
