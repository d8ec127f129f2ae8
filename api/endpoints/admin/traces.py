"""``/admin/api/traces``: what happened to single requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.queries import query_of
from api.endpoints.admin.resources import Json, Version, etag_of, newest_first, no_content, one
from api.explain import explain_object, usage_object
from api.json_response import json_response
from api.openapi import answers, asks
from api.schemas.admin_answers import Forgotten, PageOf, TraceRow, TraceTold
from api.schemas.admin_queries import ForgetQuery, TracesQuery
from api.services import Services
from domain.trace import Trace

router = APIRouter(prefix="/traces")


@router.get("", openapi_extra=asks(TracesQuery), responses=answers(PageOf[TraceRow]))
async def list_traces(services: ServicesDep, asked: Annotated[TracesQuery, Depends(query_of(TracesQuery))]) -> Response:
    """The traces that meet every filter, newest first, without what was said in them."""

    async def read(limit: int, after: str | None) -> Sequence[Trace]:
        return await services.trace_store.list(
            request_id=asked.request_id,
            expert_id=asked.expert,
            strategy=asked.strategy,
            model=asked.model,
            status=asked.status,
            since=asked.since,
            until=asked.until,
            limit=limit,
            after=after,
        )

    return await newest_first(read, _row, asked, what="trace")


@router.get("/{trace_id}", responses=answers(TraceTold))
async def get_trace(services: ServicesDep, trace_id: str) -> Response:
    """One trace with its calls and, where traces may keep them, the conversation and the answers."""
    view = _view(await services.trace_store.get(trace_id))
    return one(view, etag_of(view))


@router.delete("", openapi_extra=asks(ForgetQuery), responses=answers(Forgotten))
async def delete_traces(services: ServicesDep, asked: Annotated[ForgetQuery, Depends(query_of(ForgetQuery))]) -> Response:
    """Forget the requests that began before a moment, and what the memory has kept of them."""
    await services.memory.forgotten_before(asked.before)
    return json_response({"num_deleted": await services.trace_store.delete_before(asked.before)})


@router.delete("/{trace_id}", status_code=204)
async def delete_trace(services: ServicesDep, trace_id: str, version: Version) -> Response:
    """Forget one request, and what the memory has kept of it."""
    await _checked(services, trace_id, version)
    await services.memory.forgotten(trace_id)  # first: when the rest fails, the trace is there still, to be deleted again
    await services.trace_store.delete(trace_id)
    await services.memory.forgotten(trace_id)  # and what was let in meanwhile
    return no_content()


async def _checked(services: Services, trace_id: str, version: Version) -> None:
    trace = await services.trace_store.get(trace_id)
    version.check(etag_of(_view(trace)), f"the trace {trace_id!r}")


def _row(trace: Trace) -> Json:
    return {
        "id": trace.id,
        "request_id": trace.request_id,
        "model": trace.model,
        "strategy": trace.strategy,
        "started_at": trace.started_at,
        "status": trace.status,
        "router": trace.decision.router if trace.decision else None,
        "experts": list(dict.fromkeys(call.expert_id for call in trace.calls)),
        "skills": [match.skill for match in trace.decision.skills] if trace.decision else [],
        "aggregator": trace.aggregator,
        "total_ms": round(trace.timings.total, 3),
        "usage": usage_object(trace.usage),
        "error_code": trace.error_code,
        "stream": trace.stream,
    }


def _view(trace: Trace) -> Json:
    explained = explain_object(trace)
    texts = [call.text for call in trace.calls]
    explained["calls"] = [{**call, "text": text} for call, text in zip(explained["calls"], texts, strict=True)]
    view = {
        **_row(trace),
        **explained,
        "error_message": trace.error_message,
        "session_id": trace.session_id,
        "messages": None if trace.messages is None else [dict(message) for message in trace.messages],
        "answer": trace.answer,
    }
    # Through JSON once, so that enumerations and tuples in free-form parts look the same to the tag and to the caller.
    plain: Json = orjson.loads(orjson.dumps(view))
    return plain
