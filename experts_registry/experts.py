"""Expert cards in the database."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.experts import Backend, Capability, ExpertCard, ExpertRole, Price, ServingOptions
from experts_registry import outcome_rows, references, state
from experts_registry.database import Database
from experts_registry.skills import add_missing_skills
from experts_registry.strategies import require_not_named
from experts_registry.tables import experts, profile_counts
from experts_registry.versioned import VersionedTable

_DEFAULT_SERVING = asdict(ServingOptions())


def _serving_to_json(options: ServingOptions) -> dict[str, Any]:
    """What differs from the defaults; most cards have no server of ours."""
    changed = {name: value for name, value in asdict(options).items() if value != _DEFAULT_SERVING[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}


def _serving_from_json(stored: Mapping[str, Any]) -> ServingOptions:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    return ServingOptions(**values)


def _to_row(card: ExpertCard) -> dict[str, Any]:
    return {
        "id": card.id,
        "version": card.version,
        "enabled": card.enabled,
        "backend": card.backend.value,
        "model": card.model,
        "description": card.description,
        "base_url": card.base_url,
        "api_key": card.api_key,
        "adapter_of": card.adapter_of,
        "context_length": card.context_length,
        "chars_per_token": card.chars_per_token,
        "capabilities": sorted(card.capabilities),
        "roles": sorted(card.roles),
        "skills": list(card.skills),
        "exemplars": list(card.exemplars),
        "labels": sorted(card.labels),
        "parameters_b": card.parameters_b,
        "memory_mb": card.memory_mb,
        "serving": _serving_to_json(card.serving),
        "price_prompt": card.price.prompt,
        "price_completion": card.price.completion,
        "sampling": dict(card.sampling),
        "extra_body": dict(card.extra_body),
        "aggregation_prompt": card.aggregation_prompt,
        "max_in_flight": card.max_in_flight,
        "queue_timeout_s": card.queue_timeout_s,
        "timeout_s": card.timeout_s,
        "max_queued": card.max_queued,
        "first_token_timeout_s": card.first_token_timeout_s,
        "idle_timeout_s": card.idle_timeout_s,
        "hedge_after_s": card.hedge_after_s,
    }


def _from_row(row: sa.RowMapping) -> ExpertCard:
    return ExpertCard(
        id=row["id"],
        version=row["version"],
        enabled=row["enabled"],
        backend=Backend(row["backend"]),
        model=row["model"],
        description=row["description"],
        base_url=row["base_url"],
        api_key=row["api_key"],
        adapter_of=row["adapter_of"],
        context_length=row["context_length"],
        chars_per_token=row["chars_per_token"],
        capabilities=frozenset(Capability(name) for name in row["capabilities"]),
        roles=frozenset(ExpertRole(name) for name in row["roles"]),
        skills=tuple(row["skills"]),
        exemplars=tuple(row["exemplars"]),
        labels=frozenset(row["labels"]),
        parameters_b=row["parameters_b"],
        memory_mb=row["memory_mb"],
        serving=_serving_from_json(row["serving"]),
        price=Price(row["price_prompt"], row["price_completion"]),
        sampling=row["sampling"],
        extra_body=row["extra_body"],
        aggregation_prompt=row["aggregation_prompt"],
        max_in_flight=row["max_in_flight"],
        queue_timeout_s=row["queue_timeout_s"],
        timeout_s=row["timeout_s"],
        max_queued=row["max_queued"],
        first_token_timeout_s=row["first_token_timeout_s"],
        idle_timeout_s=row["idle_timeout_s"],
        hedge_after_s=row["hedge_after_s"],
    )


CardCheck = Callable[[ExpertCard], object]
"""Raises ``InvalidRequest`` for a card that could not be used as it is. It may read files: it is called in a thread."""


def accept_any(_: ExpertCard) -> None: ...


EXPERTS = VersionedTable(kind="expert", table=experts, to_row=_to_row, from_row=_from_row)


async def recounted(connection: AsyncConnection, before: ExpertCard | None, stored: ExpertCard) -> int:
    """After *stored* took the place of *before* (None: it is new): where its answers may be others, what was measured of the old card
    counts no more, and what was measured of this one counts again. How many questions were answered by other cards alone."""
    if before is not None and before.fingerprint == stored.fingerprint:
        return 0
    num_outdated = await outcome_rows.recount(connection, stored.id, stored.fingerprint)
    counted = await outcome_rows.read_counts(connection, profile_counts.c.expert_id == stored.id)
    await add_missing_skills(connection, (skill for _, skill in counted if skill))  # one that nobody had any more may have been removed
    return num_outdated


async def read_fingerprints(connection: AsyncConnection, expert_ids: Collection[str]) -> dict[str, str]:
    """Of the cards of those that there are."""
    return {card.id: card.fingerprint for card in await EXPERTS.some(connection, expert_ids)}


@dataclass(frozen=True, slots=True)
class Declared:
    """A card as it is stored now, the skills that became known with it, and what it made of measurements."""

    card: ExpertCard
    new_skills: tuple[str, ...] = ()
    num_outdated: int = 0
    """Questions that were answered by an older card of the expert alone, where this one answers differently."""


class ExpertStore:
    """Expert cards. Every method is one transaction; every change bumps the registry's version."""

    def __init__(self, database: Database, *, check_card: CardCheck = accept_any) -> None:
        """*check_card* is asked before a card is written: it knows what cards do not say, such as which models there are."""
        self._database = database
        self.check_card = check_card

    async def list(self) -> builtins.list[ExpertCard]:
        """Every card, by id, disabled ones too."""
        async with self._database.reading() as connection:
            return await EXPERTS.all(connection)

    async def get(self, expert_id: str) -> ExpertCard:
        """Raises ``NotFound`` with the nearest id."""
        async with self._database.reading() as connection:
            return await EXPERTS.one(connection, expert_id)

    async def create(self, card: ExpertCard) -> ExpertCard:
        """Store a new card; its version is the store's to give.

        Skills that it declares and nobody knew become known. Raises ``Conflict`` when the id is taken, ``InvalidRequest``
        when it declares what looks like a misspelling of a known skill, or as ``check_card`` does.
        """
        return (await self.declare(card)).card

    async def replace(self, card: ExpertCard, if_version: int | None = None) -> ExpertCard:
        """Put *card* in the place of the one with its id and return it with its new, higher version.

        Skills are treated as in ``create``. Raises ``NotFound``, ``PreconditionFailed`` when the stored version is not
        *if_version* (None: whichever it is), ``InvalidRequest``.
        """
        return (await self.redeclare(card, if_version)).card

    async def declare(self, card: ExpertCard) -> Declared:
        """``create`` that tells which skills are new."""
        (declared,) = await self.declare_all([card])
        return declared

    async def declare_all(self, cards: Sequence[ExpertCard]) -> builtins.list[Declared]:
        """``declare`` for several cards, in their order: all of them or, when one is refused, none."""
        for card in cards:
            await asyncio.to_thread(self.check_card, card)
        async with self._database.session() as connection:
            await state.lock(connection)
            declared = []
            for card in cards:
                new_skills = await references.add_declared_skills(connection, card)
                stored = await EXPERTS.insert(connection, card)
                declared.append(Declared(stored, new_skills, await recounted(connection, None, stored)))
            if declared:
                await state.bump(connection)
        return declared

    async def redeclare(self, card: ExpertCard, if_version: int | None = None) -> Declared:
        """``replace`` that tells which skills are new."""
        await asyncio.to_thread(self.check_card, card)
        async with self._database.session() as connection:
            await state.lock(connection)
            new_skills = await references.add_declared_skills(connection, card)
            before = await EXPERTS.one(connection, card.id)
            stored = await EXPERTS.update(connection, card, if_version)
            num_outdated = await recounted(connection, before, stored)
            await state.bump(connection)
        return Declared(stored, new_skills, num_outdated)

    async def delete(self, expert_id: str, if_version: int | None = None) -> None:
        """Remove a card. What was measured stays, and counts again when the id comes back.

        Raises ``NotFound``, ``PreconditionFailed``, or ``Conflict`` while a strategy names the expert.
        """
        async with self._database.session() as connection:
            await state.lock(connection)
            await require_not_named(connection, expert_id)
            await EXPERTS.delete(connection, expert_id, if_version)
            await state.bump(connection)
