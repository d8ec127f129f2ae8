"""The registry's version row: who changes anything locks it first and bumps it last, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from experts_registry.tables import registry_state


@dataclass(frozen=True, slots=True)
class Versions:
    """What other processes compare to see whether they have to read again."""

    registry: int
    questions: int


async def read_versions(connection: AsyncConnection) -> Versions:
    """The versions as committed."""
    row = (await connection.execute(sa.select(registry_state.c.version, registry_state.c.questions_version))).one()
    return Versions(row.version, row.questions_version)


async def lock(connection: AsyncConnection) -> Versions:
    """Be the only one who changes the registry until this transaction ends, so that checks made now still hold then."""
    statement = sa.select(registry_state.c.version, registry_state.c.questions_version).with_for_update()
    row = (await connection.execute(statement)).one()
    return Versions(row.version, row.questions_version)


async def bump(connection: AsyncConnection, *, questions: bool = False) -> None:
    """Tell every process that something changed; with *questions*, that the labelled questions did."""
    await connection.execute(
        registry_state.update().values(
            version=registry_state.c.version + 1,
            questions_version=registry_state.c.questions_version + int(questions),
        )
    )
