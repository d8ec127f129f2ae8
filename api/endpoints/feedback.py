"""``POST /v1/feedback``: what a user says about an answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Depends, Request, Response

from api.admission import caller_of
from api.body import parsed
from api.dependencies import StoredServices, require_key
from api.openapi import answers, body_of
from api.schemas.answers import FeedbackGiven
from api.schemas.feedback import FeedbackBody, parse_feedback
from api.services import Services
from domain.errors import Conflict, NotFound
from domain.feedback import Feedback
from domain.trace import Trace
from orchestrator.feedback.given import feedback_of

router = APIRouter(tags=["feedback"], dependencies=[Depends(require_key)])


@router.post("/v1/feedback", openapi_extra=body_of(FeedbackBody), responses=answers(FeedbackGiven))
async def give_feedback(request: Request, services: StoredServices) -> Response:
    """Say how good an answer was: `score`, `correct`, or which expert was right. What can be learnt from it is learnt at once. The same
    again changes nothing and is answered alike; something else about the same request needs an `id` of its own."""
    require_feedback(services)
    body = await parsed(request, parse_feedback)
    trace = await _trace(services, body)
    if not caller_of(request).owner.owns(trace.key_id):
        raise _nowhere(body)
    vector = await services.trace_store.vector(trace.id)
    encoder_id, floats = vector or (None, None)
    event = feedback_of(trace, body.given, own_id=body.id, now=time.time(), vector=floats, encoder_id=encoder_id)
    kept = await services.feedback.give(event)
    await services.memory.heard(trace, kept, stands=lambda: _stands(services, trace, kept))
    return Response(orjson.dumps({"object": "consilium.feedback", **feedback_view(kept)}), media_type="application/json")


async def _trace(services: Services, body: FeedbackBody) -> Trace:
    """What *body* speaks of. Raises ``NotFound``."""
    if body.request_id is not None:
        return await services.trace_store.newest(body.request_id)
    try:
        return await services.trace_store.get(str(body.trace_id))
    except NotFound:
        raise _nowhere(body) from None


async def _stands(services: Services, trace: Trace, event: Feedback) -> bool:
    """Whether *event* still counts and *trace* is still there."""
    try:
        await services.trace_store.get(trace.id)
        return (await services.feedback_store.get(event.id)).counts
    except NotFound:
        return False


def _nowhere(body: FeedbackBody) -> NotFound:
    if body.request_id is not None:
        return NotFound(f"there is no trace of a request {body.request_id!r} (any more)", param="request_id")
    return NotFound(f"there is no trace {body.trace_id!r} (any more)", param="trace_id")


def require_feedback(services: Services) -> None:
    """Raise ``Conflict`` where the settings leave nothing to learn from."""
    if not services.settings.feedback:
        raise Conflict("feedback is switched off (CONSILIUM_FEEDBACK)")
    if not services.settings.traces:
        raise Conflict("feedback speaks of traces, and these are switched off (CONSILIUM_TRACES)")


def feedback_view(event: Feedback) -> Mapping[str, Any]:
    """One event as JSON; what was routed is never shown."""
    return {
        "id": event.id,
        "request_id": event.request_id,
        "trace_id": event.trace_id or None,
        "created_at": event.created_at,
        "given": dict(event.given),
        "scores": dict(event.scores),
        "expected": {expert_id: round(score, 6) for expert_id, score in event.expected.items()},
        "answered_by": event.answered_by,
        "strategy": event.strategy,
        "router": event.router,
        "skills": [{"skill": skill, "weight": round(weight, 4)} for skill, weight in event.skills],
        "category": event.category,
        "resets": event.resets,
        "status": "counts" if event.counts else "rolled_back",
        "rolled_back_at": event.rolled_back_at,
    }
