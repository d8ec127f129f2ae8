"""Strategies in the database."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.budget import Budget
from domain.effort import AS_IT_STANDS, EffortLevel, EffortRule
from domain.errors import Conflict
from domain.routing import PickRule
from domain.strategy import DEFAULT_MODE, Strategy
from experts_registry import references, state
from experts_registry.adjustments import adjustments_from_object, adjustments_to_object
from experts_registry.database import Database
from experts_registry.tables import strategies
from experts_registry.versioned import VersionedTable


def _to_row(strategy: Strategy) -> dict[str, Any]:
    return {
        "id": strategy.id,
        "version": strategy.version,
        "enabled": strategy.enabled,
        "description": strategy.description,
        "router": strategy.router,
        "router_options": dict(strategy.router_options),
        "pick_kind": strategy.pick.kind,
        "pick_k": strategy.pick.k,
        "pick_threshold": strategy.pick.threshold,
        "adjustments": adjustments_to_object(strategy.adjustments),
        "mode": _mode_to_object(strategy),
        "aggregator": strategy.aggregator,
        "aggregator_expert": strategy.aggregator_expert,
        "fallback_expert": strategy.fallback_expert,
        "max_calls": strategy.max_calls,
        "timeout_s": strategy.timeout_s,
        "hedge_after_s": strategy.hedge_after_s,
    }


def _from_row(row: sa.RowMapping) -> Strategy:
    return Strategy(
        id=row["id"],
        version=row["version"],
        enabled=row["enabled"],
        description=row["description"],
        router=row["router"],
        router_options=row["router_options"],
        pick=PickRule(kind=row["pick_kind"], k=row["pick_k"], threshold=row["pick_threshold"]),
        adjustments=adjustments_from_object(row["adjustments"]),
        aggregator=row["aggregator"],
        aggregator_expert=row["aggregator_expert"],
        fallback_expert=row["fallback_expert"],
        max_calls=row["max_calls"],
        timeout_s=row["timeout_s"],
        hedge_after_s=row["hedge_after_s"],
        **_mode_from_object(row["mode"]),
    )


def _mode_to_object(strategy: Strategy) -> dict[str, Any]:
    """How its experts work together, and its budget: what is not as usual."""
    found: dict[str, Any] = {
        "mode": strategy.mode if strategy.mode != DEFAULT_MODE else None,
        "mode_options": dict(strategy.mode_options) or None,
        "prompts": dict(strategy.prompts) or None,
        "quorum": strategy.quorum,
        "candidate_timeout_s": strategy.candidate_timeout_s,
        "budget": {name: bound for name, bound in asdict(strategy.budget).items() if bound is not None} or None,
        "alone_from_accuracy": strategy.alone_from_accuracy,
        "shed_from_load": strategy.shed_from_load,
        "effort": _effort_to_object(strategy.effort) if strategy.effort != AS_IT_STANDS else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _mode_from_object(found: Mapping[str, Any]) -> dict[str, Any]:
    """What ``_mode_to_object`` was given, as fields of a strategy."""
    fields = dict(found)
    if "budget" in found:
        fields["budget"] = Budget(**found["budget"])
    if "effort" in found:
        levels = {name: EffortLevel(**level) for name, level in found["effort"].get("levels", {}).items()}
        fields["effort"] = EffortRule(**{**found["effort"], "levels": levels})
    return fields


def _effort_to_object(rule: EffortRule) -> dict[str, Any]:
    levels = {name: {key: value for key, value in asdict(level).items() if value is not None} for name, level in rule.levels.items()}
    return {"default": rule.default, "from_reasoning_effort": rule.from_reasoning_effort, "levels": levels}


STRATEGIES = VersionedTable(kind="strategy", table=strategies, to_row=_to_row, from_row=_from_row)


async def require_not_named(connection: AsyncConnection, expert_id: str) -> None:
    """Raises ``Conflict`` when a strategy names this expert, in whichever of its fields. On a connection that holds the registry's lock."""
    users = [strategy.id for strategy in await STRATEGIES.all(connection) if expert_id in strategy.named_experts().values()]
    if users:
        raise Conflict(f"expert {expert_id!r} is named by strategy {', '.join(sorted(users))}: change that first", param="id")


class StrategyStore:
    """Strategies. Every method is one transaction; every change bumps the registry's version."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> builtins.list[Strategy]:
        """Every strategy, by id, disabled ones too."""
        async with self._database.reading() as connection:
            return await STRATEGIES.all(connection)

    async def get(self, strategy_id: str) -> Strategy:
        """Raises ``NotFound`` with the nearest id."""
        async with self._database.reading() as connection:
            return await STRATEGIES.one(connection, strategy_id)

    async def create(self, strategy: Strategy) -> Strategy:
        """Store a new strategy; its version is the store's to give.

        Raises ``Conflict`` when the id is taken, ``InvalidRequest`` when it names an expert that is not there.
        """
        async with self._database.session() as connection:
            await state.lock(connection)
            await references.require_experts(connection, strategy)
            stored = await STRATEGIES.insert(connection, strategy)
            await state.bump(connection)
        return stored

    async def replace(self, strategy: Strategy, if_version: int | None = None) -> Strategy:
        """Put *strategy* in the place of the one with its id and return it with its new, higher version.

        Raises ``NotFound``, ``PreconditionFailed`` when the stored version is not *if_version* (None: whichever it is),
        ``InvalidRequest`` when it names an expert that is not there.
        """
        async with self._database.session() as connection:
            await state.lock(connection)
            await references.require_experts(connection, strategy)
            stored = await STRATEGIES.update(connection, strategy, if_version)
            await state.bump(connection)
        return stored

    async def delete(self, strategy_id: str, if_version: int | None = None) -> None:
        """Raises ``NotFound`` or ``PreconditionFailed``."""
        async with self._database.session() as connection:
            await state.lock(connection)
            await STRATEGIES.delete(connection, strategy_id, if_version)
            await state.bump(connection)
