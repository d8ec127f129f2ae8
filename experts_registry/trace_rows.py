"""Traces as rows: some columns to filter by, and the whole trace as one JSON document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.trace import Trace
from experts_registry.questions import chunks
from experts_registry.tables import trace_experts, traces

_MAX_NESTING = 64
"""Deeper values, which no real request has, are cut off rather than overflowing the stack."""


@cache
def _adapter() -> TypeAdapter[Trace]:
    return TypeAdapter(Trace)


def to_row(trace: Trace) -> dict[str, Any]:
    """The columns of ``traces``. Never raises on what a client has sent: what JSON cannot hold becomes text or null."""
    return {
        "request_id": storable(trace.request_id, 128),
        "started_at": trace.started_at,
        "model": storable(trace.model, 256),
        "strategy": None if trace.strategy is None else storable(trace.strategy, 64),
        "status": storable(trace.status, 32),
        "document": _plain(_adapter().dump_python(trace, warnings=False), _MAX_NESTING),
    }


def from_document(document: Mapping[str, Any]) -> Trace:
    """The trace as it was, unknown newer fields left out."""
    return _adapter().validate_python(document)


async def write(connection: AsyncConnection, batch: Sequence[tuple[dict[str, Any], Sequence[str]]]) -> None:
    """Write rows with the ids of the experts that were called; of two with one request id the later stands."""
    distinct = {row["request_id"]: (row, experts) for row, experts in batch}
    for some in chunks(list(distinct.values())):
        ids = [row["request_id"] for row, _ in some]
        await connection.execute(traces.delete().where(traces.c.request_id.in_(ids)))
        await connection.execute(traces.insert(), [row for row, _ in some])
        called = [{"request_id": row["request_id"], "expert_id": expert} for row, experts in some for expert in experts]
        if called:
            await connection.execute(trace_experts.insert(), called)


async def select(connection: AsyncConnection, conditions: Sequence[sa.ColumnElement[bool]], *, limit: int) -> list[Trace]:
    """The newest *limit* traces that meet every condition, newest first."""
    statement = (
        sa.select(traces.c.document).where(*conditions).order_by(traces.c.started_at.desc(), traces.c.request_id.desc()).limit(limit)
    )
    return [from_document(document) for document in await connection.scalars(statement)]


def experts_of(trace: Trace) -> tuple[str, ...]:
    """Who was called, each once."""
    return tuple(dict.fromkeys(storable(call.expert_id, 64) for call in trace.calls))


def storable(text: str, max_length: int) -> str:
    """*text* as a column can hold it: cut, without NUL and half surrogate pairs."""
    return text[:max_length].encode("utf-8", "replace").decode().replace("\0", "?")


def _plain(value: Any, depth: int) -> Any:
    """*value* in JSON's types only."""
    match value:
        case str() | bool() | int() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping() if depth:
            return {str(key): _plain(inner, depth - 1) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset() if depth:
            return [_plain(inner, depth - 1) for inner in value]
        case Mapping() | list() | tuple() | set() | frozenset():
            return "…"
        case _:
            return str(value)[:1000]
