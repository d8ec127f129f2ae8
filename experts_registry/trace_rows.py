"""Traces as rows: some columns to filter by, and the whole trace as one JSON document."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from heapq import nlargest
from itertools import islice
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.routing import RoutingDecision
from domain.trace import Trace
from experts_registry.bulk_insert import insert_many
from experts_registry.database import JsonText
from experts_registry.questions import chunks
from experts_registry.tables import trace_experts, trace_vectors, traces

_MAX_NESTING = 64
"""Deeper values, which no real request has, are cut off rather than overflowing the stack."""


MAX_CONSIDERED = 50
"""Considered experts that a stored trace keeps: with a thousand of them, each trace would be a hundred kilobytes of reasons why not."""
_NUM_CONSIDERED = "num_considered"
"""In the decision's detail, where some were left out: how many there were."""
_MAX_LISTED = 200
"""Entries that a list in a decision's detail keeps."""
_BYTES_EACH = 200
"""Rough size of a call, a considered expert or a message beside its text."""
_BYTES_DEFERRED = 5_000
"""Rough size of a detail that is not made yet: the query's vectors and text."""
_BYTES_VALUE = 16
"""Rough size of a value in a detail, with its name, beside its text."""
_SCALARS = (str, int, float, bool, type(None))


def compact(trace: Trace) -> Trace:
    """*trace* as it is kept: of the considered experts those that were selected and the best of the others, in their order; the router's
    calls once, among all calls."""
    decision = trace.decision
    if decision is not None and decision.calls:
        decision = decision.altered(calls=())
        trace = replace(trace, decision=decision)
    if decision is None or len(decision.considered) <= MAX_CONSIDERED:
        return trace
    num_others = max(0, MAX_CONSIDERED - sum(expert.selected for expert in decision.considered))
    best = nlargest(num_others, (e for e in decision.considered if not e.selected), key=lambda expert: expert.score)
    kept = {expert.expert_id for expert in best}
    considered = tuple(expert for expert in decision.considered if expert.selected or expert.expert_id in kept)
    if decision.is_detailed:
        made = replace(decision, considered=considered, detail=_counted(decision))
    else:
        made = decision.altered(considered=considered).detailed_by(partial(_counted, decision))
    return replace(trace, decision=made)


def _counted(decision: RoutingDecision) -> dict[str, Any]:
    """Its detail, with how many experts were considered."""
    return {**decision.detail, _NUM_CONSIDERED: len(decision.considered)}


def _cut(value: Any, kept: frozenset[str], depth: int) -> Any:
    """*value* with at most ``MAX_CONSIDERED`` entries in each object, those of *kept* experts before others, in their order."""
    if isinstance(value, _SCALARS):  # before ``match`` asks whether it is some kind of mapping, which takes a microsecond
        return value
    match value:
        case Mapping() if depth:
            names: Iterable[Any] = value
            if len(value) > MAX_CONSIDERED:
                first = [name for name in value if name in kept]
                others = (name for name in value if name not in kept)
                chosen = {*first, *islice(others, max(0, MAX_CONSIDERED - len(first)))}
                names = [name for name in value if name in chosen]
            return {name: _cut(value[name], kept, depth - 1) for name in names}
        case list() | tuple() if depth:
            return [_cut(inner, kept, depth - 1) for inner in value[:_MAX_LISTED]]
        case _:
            return value


def size_of(trace: Trace) -> int:
    """About how many bytes *trace* holds; what counts is text. Costs no more than looking at each part once."""
    num_parts = 1 + len(trace.calls)
    num_bytes = len(trace.answer or "") + len(trace.error_message or "")
    for call in trace.calls:
        num_bytes += len(call.text or "") + len(call.error or "")
    for message in trace.messages or ():
        content = message.get("content")
        num_bytes += len(content) if isinstance(content, str) else len(repr(content)) if content else 0
        num_parts += 1
    if (decision := trace.decision) is not None:
        num_parts += len(decision.considered)
        num_bytes += len(decision.reason) + len(decision.vector or b"")  # and not why each expert was chosen, which is made when it is read
        num_bytes += _BYTES_DEFERRED if not decision.is_detailed else _size_of(decision.detail, _MAX_NESTING) if decision.detail else 0
    return num_parts * _BYTES_EACH + num_bytes


def _size_of(value: Any, depth: int) -> int:
    match value:
        case str():
            return _BYTES_VALUE + len(value)
        case Mapping() if depth:
            return _BYTES_VALUE + sum(len(str(name)) + _size_of(inner, depth - 1) for name, inner in value.items())
        case list() | tuple() if depth:
            return _BYTES_VALUE + sum(_size_of(inner, depth - 1) for inner in value)
        case _:
            return _BYTES_VALUE


def vector_of(trace: Trace) -> bytes | None:
    """What was routed, as the encoder saw it; kept in a table of its own."""
    return None if trace.decision is None else trace.decision.vector


@cache
def _adapter() -> TypeAdapter[Trace]:
    return TypeAdapter(Trace)


def to_row(trace: Trace) -> dict[str, Any]:
    """The columns of ``traces``. Never raises on what a client has sent: what JSON cannot hold becomes text or null."""
    decision = trace.decision
    if decision is not None:
        kept = frozenset(expert.expert_id for expert in decision.considered)
        detail = _cut(decision.detail, kept, _MAX_NESTING)
        if decision.vector is not None or detail != decision.detail:  # two copies take as long as making the document
            trace = replace(trace, decision=replace(decision, detail=detail, vector=None))
    return {
        "id": storable(trace.id, 128),
        "request_id": storable(trace.request_id, 128),
        "started_at": trace.started_at,
        "model": storable(trace.model, 256),
        "strategy": None if trace.strategy is None else storable(trace.strategy, 64),
        "status": storable(trace.status, 32),
        "minute": minute_of(trace.started_at),
        "total_ms": trace.timings.total if math.isfinite(trace.timings.total) else None,
        "error_code": None if trace.error_code is None else storable(trace.error_code, 64),
        "document": JsonText(_document(trace)),
    }


def _document(trace: Trace) -> str:
    """*trace* as JSON: at once as nearly every one is, value by value where something in it is no JSON or too deep."""
    try:
        return _adapter().dump_json(trace, warnings="error").decode()
    except ValueError:  # pydantic's own errors are such, and so is what it says of depth and half surrogate pairs
        return json.dumps(_plain(_adapter().dump_python(trace, warnings=False), _MAX_NESTING), allow_nan=False)


def from_document(document: Mapping[str, Any], trace_id: str) -> Trace:
    """The trace as it was, unknown newer fields left out. Older documents do not hold its id."""
    return _adapter().validate_python({**document, "id": trace_id})


Vectors = Mapping[str, tuple[str, bytes]]
"""By trace: the encoder, and what it made of the text that was routed."""


def write(
    connection: sa.Connection, batch: Sequence[tuple[dict[str, Any], Sequence[dict[str, Any]]]], vectors: Vectors, *, is_new: bool
) -> set[str]:
    """Write rows with what ``calls_of`` tells of each. What comes again, after a failure that was none, stands once: the ids of those that
    do are returned. *is_new*: nothing of the batch was tried before, so that nothing of it has to be looked for."""
    again: set[str] = set()
    distinct = {row["id"]: (row, experts) for row, experts in batch}
    if not is_new:
        for ids in chunks(list(distinct)):
            again.update(connection.scalars(traces.delete().where(traces.c.id.in_(ids)).returning(traces.c.id)).all())
    insert_many(connection, traces, [row for row, _ in distinct.values()])
    called = [
        {"trace_id": row["id"], "started_at": row["started_at"], "minute": row["minute"], **counts}
        for row, experts in distinct.values()
        for counts in experts
    ]
    insert_many(connection, trace_experts, called)
    known = [(trace_id, *vectors[trace_id]) for trace_id in distinct if trace_id in vectors] if vectors else []
    rows = [{"trace_id": trace_id, "encoder_id": encoder_id, "vector": vector} for trace_id, encoder_id, vector in known]
    insert_many(connection, trace_vectors, rows)
    return again


async def select(connection: AsyncConnection, conditions: Sequence[sa.ColumnElement[bool]], *, limit: int) -> list[Trace]:
    """The newest *limit* traces that meet every condition, newest first."""
    newest_first = traces.c.started_at.desc(), traces.c.id.desc()
    statement = sa.select(traces.c.id, traces.c.document).where(*conditions).order_by(*newest_first).limit(limit)
    return [from_document(document, trace_id) for trace_id, document in await connection.execute(statement)]


async def select_called(
    connection: AsyncConnection, of_expert: Sequence[sa.ColumnElement[bool]], conditions: Sequence[sa.ColumnElement[bool]], *, limit: int
) -> list[Trace]:
    """The newest *limit* traces with a call that meets *of_expert*, which meet *conditions* themselves, newest first."""
    called = trace_experts.c
    statement = (
        sa.select(traces.c.id, traces.c.document)
        .join_from(trace_experts, traces, called.trace_id == traces.c.id)
        .where(*of_expert, *conditions)
        .order_by(called.started_at.desc(), called.trace_id.desc())
        .limit(limit)
    )
    return [from_document(document, trace_id) for trace_id, document in await connection.execute(statement)]


def calls_of(trace: Trace) -> list[dict[str, Any]]:
    """What each expert that was called did, as columns of ``trace_experts``; each once."""
    found: dict[str, dict[str, Any]] = {}
    for call in trace.calls:
        expert_id = storable(call.expert_id, 64)
        row = found.setdefault(
            expert_id, {"expert_id": expert_id, "num_calls": 0, "num_failed": 0, "prompt_tokens": 0, "completion_tokens": 0}
        )
        row["num_calls"] += call.status != "skipped"
        row["num_failed"] += call.status == "error"
        row["prompt_tokens"] += call.usage.prompt_tokens
        row["completion_tokens"] += call.usage.completion_tokens
    return list(found.values())


def minute_of(timestamp: float) -> int:
    """Whole minutes since the epoch."""
    return math.floor(timestamp / 60)


def storable(text: str, max_length: int) -> str:
    """*text* as a column can hold it: cut, without NUL and half surrogate pairs."""
    if text.isascii() and len(text) <= max_length and "\0" not in text:  # nearly always
        return text
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
