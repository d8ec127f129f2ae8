"""A manifest into the registry: the declarative way in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.experts import ExpertCard
from domain.strategy import Strategy
from experts_registry import references, state
from experts_registry.database import Database
from experts_registry.experts import EXPERTS, CardCheck, accept_any, recounted
from experts_registry.manifest import Manifest
from experts_registry.skills import read_skills, write_skills
from experts_registry.strategies import STRATEGIES, require_not_named
from experts_registry.tables import skills
from experts_registry.versioned import T, VersionedTable


@dataclass(frozen=True, slots=True)
class Changes:
    """What applying did, or with ``dry_run`` would do. Entries such as "expert numerals", "strategy auto", "skill algebra"."""

    created: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()
    """Experts that may answer differently now, with what was measured of them and counts no more ("expert numerals: 120 questions")."""

    @property
    def any(self) -> bool:
        """Whether anything is different now."""
        return bool(self.created or self.updated or self.removed)

    def __add__(self, other: Changes) -> Changes:
        return Changes(
            self.created + other.created,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.removed + other.removed,
            self.outdated + other.outdated,
        )


class _DryRunEnds(Exception):
    """Leaves the transaction, so that it is undone."""


async def apply(
    database: Database, manifest: Manifest, *, prune: bool = False, dry_run: bool = False, check_card: CardCheck = accept_any
) -> Changes:
    """Make the registry hold what *manifest* declares, all of it or, when anything is wrong, nothing.

    What is the same stays untouched and keeps its version. With *prune*, experts and strategies that the manifest leaves
    out are removed, and skills that nothing uses, each only when the manifest has that key at all. With *dry_run* every
    check is made and nothing is kept. *check_card* is asked about every card that is new or changed.

    Raises ``InvalidRequest`` (an unknown skill or expert, what *check_card* raises) or ``Conflict`` (what is to be removed is
    still in use).
    """
    changes = Changes()
    try:
        async with database.session() as connection:
            await state.lock(connection)
            changes = await write_manifest(connection, manifest, prune=prune, check_card=check_card)
            if dry_run:
                raise _DryRunEnds
            if changes.any:
                await state.bump(connection)
    except _DryRunEnds:
        return changes
    return changes


async def write_manifest(connection: AsyncConnection, manifest: Manifest, *, prune: bool, check_card: CardCheck = accept_any) -> Changes:
    """In an order in which what is referred to is there: skills, experts, strategies; removal the other way round."""

    async def require_usable(connection: AsyncConnection, card: ExpertCard) -> None:
        await references.require_skills(connection, card)
        await asyncio.to_thread(check_card, card)

    cards, strategies = manifest.to_cards(), manifest.to_strategies()
    changes = await _write_skills(connection, manifest.skills)
    changes += await _write(connection, EXPERTS, cards, require_usable, recounted)
    changes += await _write(connection, STRATEGIES, strategies, references.require_experts, _measures_nothing)
    if not prune:
        return changes
    given = manifest.model_fields_set
    if "strategies" in given:
        changes += await _prune(connection, STRATEGIES, strategies)
    if "experts" in given:
        changes += await _prune(connection, EXPERTS, cards)
    if "skills" in given:
        changes += await _prune_skills(connection, manifest.skills)
    return changes


async def _write_skills(connection: AsyncConnection, described: Mapping[str, str]) -> Changes:
    stored = await read_skills(connection)
    await write_skills(connection, described)
    return Changes(
        created=tuple(f"skill {name}" for name in described if name not in stored),
        updated=tuple(f"skill {name}" for name in described if name in stored and stored[name] != described[name]),
        unchanged=tuple(f"skill {name}" for name in described if stored.get(name) == described[name]),
    )


async def _write(
    connection: AsyncConnection,
    table: VersionedTable[T],
    items: Sequence[T],
    require_references: Callable[[AsyncConnection, T], Awaitable[None]],
    outdates: Callable[[AsyncConnection, T | None, T], Awaitable[int]],
) -> Changes:
    """*outdates*: told what took whose place, it says how many measured questions that makes outdated."""
    stored = {item.id: item for item in await table.all(connection)}
    changes = Changes()
    for item in items:
        name = (f"{table.kind} {item.id}",)
        before = stored.get(item.id)
        if before is not None and replace(item, version=before.version) == before:
            changes += Changes(unchanged=name)
            continue
        await require_references(connection, item)
        stored_now = await (table.insert(connection, item) if before is None else table.update(connection, item, None))
        changes += Changes(created=name) if before is None else Changes(updated=name)
        if num_outdated := await outdates(connection, before, stored_now):
            changes += Changes(outdated=(f"{name[0]}: {num_outdated} questions",))
    return changes


async def _measures_nothing(_connection: AsyncConnection, _before: Strategy | None, _stored: Strategy) -> int:
    return 0


async def _prune(connection: AsyncConnection, table: VersionedTable[T], kept: Sequence[T]) -> Changes:
    kept_ids = {item.id for item in kept}
    removed = [item.id for item in await table.all(connection) if item.id not in kept_ids]
    for item_id in removed:
        if table.kind == EXPERTS.kind:
            await require_not_named(connection, item_id)
        await table.delete(connection, item_id, None)
    return Changes(removed=tuple(f"{table.kind} {item_id}" for item_id in removed))


async def _prune_skills(connection: AsyncConnection, kept: Collection[str]) -> Changes:
    unlisted = [name for name in await read_skills(connection) if name not in kept]
    removed = [name for name in unlisted if not await references.users_of_skill(connection, name)]
    for name in removed:
        await connection.execute(skills.delete().where(skills.c.name == name))
    return Changes(removed=tuple(f"skill {name}" for name in removed))
