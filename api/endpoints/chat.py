"""``POST /v1/chat/completions``."""

from __future__ import annotations

from functools import partial

import orjson
from fastapi import APIRouter, Depends, Request, Response

from api.admission import admitted, of_caller
from api.answers import Envelope, chat_choice, chat_pieces, frames, whole
from api.body import parsed, request_id_of, session_id_of, wants_explanation
from api.dependencies import ReadyServices, require_key
from api.disconnect import unless_gone
from api.headers import asked_strategy, stream_headers, trace_headers
from api.openapi import EVENTS, answers, body_of
from api.schemas.answers import ChatCompletion
from api.schemas.chat import ChatBody, parse_chat
from api.sse import EventStream

router = APIRouter(tags=["chat"], dependencies=[Depends(require_key)])


@router.post("/v1/chat/completions", openapi_extra=body_of(ChatBody), responses=answers(ChatCompletion, also=EVENTS))
async def create_chat_completion(request: Request, services: ReadyServices) -> Response:
    """OpenAI's chat completions. `model`: `auto`, `consilium/<strategy>` or an expert's id. The extra object `consilium` chooses
    how this request is routed and answered; with `explain` the answer says why."""
    parse = partial(parse_chat, request_id=request_id_of(request), session_id=session_id_of(request), explain=wants_explanation(request))
    asked = of_caller(request, await parsed(request, parse))
    asked_strategy(request, asked, services.directory.snapshot())
    asked, held = await admitted(request, services, asked)
    if not asked.stream:
        with held:
            answer = await unless_gone(request, services.orchestrator.run(asked))
        envelope = Envelope.of(asked, prefix="chatcmpl", object="chat.completion")
        payload = whole(envelope, answer, [chat_choice(choice) for choice in answer.choices], explain=asked.options.explain)
        return Response(orjson.dumps(payload), media_type="application/json", headers=trace_headers(answer.trace))
    with held:
        stream = await unless_gone(request, services.orchestrator.open_stream(asked))
    envelope = Envelope.of(asked, prefix="chatcmpl", object="chat.completion.chunk")
    events = frames(stream, envelope, chat_pieces(), include_usage=asked.include_usage, explain=asked.options.explain)
    return EventStream(events, close=stream.aclose, headers=stream_headers(stream), send_timeout_s=services.settings.send_timeout_s)
