"""``POST /v1/route``: the routing decision alone."""

from __future__ import annotations

import time
from functools import partial

import orjson
from fastapi import APIRouter, Depends, Request, Response

from api.admission import admitted, of_caller
from api.body import parsed, request_id_of, session_id_of
from api.decision_spans import DecisionSpans
from api.dependencies import ReadyServices, require_key
from api.disconnect import unless_gone
from api.explain import decision_object
from api.headers import asked_strategy, decision_headers
from api.openapi import answers, body_of
from api.schemas.answers import RoutingDecisionTold
from api.schemas.chat import ChatBody, parse_chat

router = APIRouter(tags=["routing"], dependencies=[Depends(require_key)])


@router.post("/v1/route", openapi_extra=body_of(ChatBody), responses=answers(RoutingDecisionTold))
async def decide_route(request: Request, services: ReadyServices) -> Response:
    """The body of a chat request; answers who would be asked, with scores and reasons. Runs no expert."""
    parse = partial(parse_chat, request_id=request_id_of(request), session_id=session_id_of(request))
    asked = of_caller(request, await parsed(request, parse))
    strategy = asked_strategy(request, asked, services.directory.snapshot())
    asked, held = await admitted(request, services, asked)
    began = time.perf_counter()
    with held, DecisionSpans(services.spans) as spans:
        deciding = services.orchestrator.decide(asked, sinks=[services.keys.usage, spans])
        decision = spans.decision = await unless_gone(request, deciding)
    route_ms = (time.perf_counter() - began) * 1e3
    payload = {
        "object": "consilium.routing_decision",
        "request_id": asked.id,
        "model": asked.model,
        "strategy": strategy,
        **decision_object(decision),
        "timings_ms": {"route": round(route_ms, 3)},
    }
    headers = decision_headers(strategy=strategy, decision=decision) | {"x-consilium-route-ms": f"{route_ms:.2f}"}
    return Response(orjson.dumps(payload), media_type="application/json", headers=headers)
