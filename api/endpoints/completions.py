"""``POST /v1/completions``: the older interface, served as a chat of one user message."""

from __future__ import annotations

from functools import partial

import orjson
from fastapi import APIRouter, Depends, Request, Response

from api.admission import admitted, of_caller
from api.answers import Envelope, frames, whole
from api.body import parsed, request_id_of, session_id_of, wants_explanation
from api.completion_shapes import text_choice, text_pieces
from api.dependencies import ReadyServices, require_key
from api.disconnect import unless_gone
from api.headers import asked_strategy, stream_headers, trace_headers
from api.openapi import EVENTS, answers, body_of
from api.schemas.answers import TextCompletion
from api.schemas.completions import CompletionBody, parse_completion
from api.sse import EventStream

router = APIRouter(tags=["chat"], dependencies=[Depends(require_key)])


@router.post("/v1/completions", openapi_extra=body_of(CompletionBody), responses=answers(TextCompletion, also=EVENTS))
async def create_completion(request: Request, services: ReadyServices) -> Response:
    """OpenAI's plain completions. The prompt is the only user message of a chat, since experts are asked in their chat template."""
    parse = partial(
        parse_completion, request_id=request_id_of(request), session_id=session_id_of(request), explain=wants_explanation(request)
    )
    asked, echo = await parsed(request, parse)
    asked = of_caller(request, asked)
    asked_strategy(request, asked, services.directory.snapshot())
    asked, held = await admitted(request, services, asked)
    envelope = Envelope.of(asked, prefix="cmpl", object="text_completion")
    if not asked.stream:
        with held:
            answer = await unless_gone(request, services.orchestrator.run(asked))
        choices = [text_choice(choice, echo=echo) for choice in answer.choices]
        payload = whole(envelope, answer, choices, explain=asked.options.explain)
        return Response(orjson.dumps(payload), media_type="application/json", headers=trace_headers(answer.trace))
    with held:
        stream = await unless_gone(request, services.orchestrator.open_stream(asked))
    events = frames(stream, envelope, text_pieces(echo=echo), include_usage=asked.include_usage, explain=asked.options.explain)
    return EventStream(events, close=stream.aclose, headers=stream_headers(stream), send_timeout_s=services.settings.send_timeout_s)
