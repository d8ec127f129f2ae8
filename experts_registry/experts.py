"""Expert cards in the database."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from domain.experts import Backend, Capability, ExpertCard, ExpertRole, Price, ServingOptions
from experts_registry import references, state
from experts_registry.database import Database
from experts_registry.tables import experts
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
    )


EXPERTS = VersionedTable(kind="expert", table=experts, to_row=_to_row, from_row=_from_row)


@dataclass(frozen=True, slots=True)
class Declared:
    """A card as it is stored now, and the skills that became known with it."""

    card: ExpertCard
    new_skills: tuple[str, ...] = ()


class ExpertStore:
    """Expert cards. Every method is one transaction; every change bumps the registry's version."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        when it declares what looks like a misspelling of a known skill.
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
        async with self._database.session() as connection:
            await state.lock(connection)
            new_skills = await references.add_declared_skills(connection, card)
            stored = await EXPERTS.insert(connection, card)
            await state.bump(connection)
        return Declared(stored, new_skills)

    async def redeclare(self, card: ExpertCard, if_version: int | None = None) -> Declared:
        """``replace`` that tells which skills are new."""
        async with self._database.session() as connection:
            await state.lock(connection)
            new_skills = await references.add_declared_skills(connection, card)
            stored = await EXPERTS.update(connection, card, if_version)
            await state.bump(connection)
        return Declared(stored, new_skills)

    async def delete(self, expert_id: str, if_version: int | None = None) -> None:
        """Remove a card. What was measured stays, and counts again when the id comes back.

        Raises ``NotFound``, ``PreconditionFailed``, or ``Conflict`` while a strategy names the expert.
        """
        async with self._database.session() as connection:
            await state.lock(connection)
            await references.require_no_strategy_names(connection, expert_id)
            await EXPERTS.delete(connection, expert_id, if_version)
            await state.bump(connection)
