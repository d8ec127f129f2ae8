"""``POST /v1/embeddings``: the encoder that routing uses."""

from __future__ import annotations

import time
from functools import partial

from fastapi import APIRouter, Depends, Request, Response

from api.admission import admitted_for, caller_of
from api.body import parsed, request_id_of
from api.dependencies import ReadyServices, require_key
from api.disconnect import unless_gone
from api.embedding_answers import EmbeddingAnswers, Whose
from api.openapi import answers, body_of
from api.schemas.answers import EmbeddingList
from api.schemas.embeddings import EmbeddingsBody
from api.schemas.validation import validate
from api.trace_middleware import CONTEXT

router = APIRouter(tags=["embeddings"], dependencies=[Depends(require_key)])


@router.post("/v1/embeddings", openapi_extra=body_of(EmbeddingsBody), responses=answers(EmbeddingList))
async def create_embeddings(request: Request, services: ReadyServices) -> Response:
    """OpenAI's embeddings, L2-normalised. `model`: the encoder's name, or `auto`."""
    asked = await parsed(request, partial(validate, EmbeddingsBody))
    embeddings, key, began = EmbeddingAnswers.of(services), caller_of(request).key, time.time()
    whose = Whose(request_id_of(request), request.scope.get(CONTEXT), None if key is None else key.id)
    if key is None:
        payload = await unless_gone(request, embeddings.answer_to(asked, whose))
        return Response(await embeddings.encoded(payload), media_type="application/json")
    num_tokens = await embeddings.count_tokens(asked)
    with await admitted_for(request, services, num_tokens=num_tokens) as held:
        payload = await unless_gone(request, embeddings.answer_to(asked, whose, num_tokens=num_tokens))
        services.keys.usage.count(key.id, embeddings.model, num_tokens, started_at=began)
        held.spent(num_tokens)
    return Response(await embeddings.encoded(payload), media_type="application/json")
