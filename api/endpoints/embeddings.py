"""``POST /v1/embeddings``: the encoder that routing uses."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Depends, Request, Response

from api.body import json_object, request_id_of
from api.dependencies import ReadyServices, require_key
from api.disconnect import unless_gone
from api.embedding_answers import EmbeddingAnswers
from api.openapi import ERRORS, body_of
from api.schemas.embeddings import EmbeddingsBody

router = APIRouter(tags=["embeddings"], dependencies=[Depends(require_key)])


@router.post("/v1/embeddings", openapi_extra=body_of(EmbeddingsBody), responses=ERRORS)
async def create_embeddings(request: Request, services: ReadyServices) -> Response:
    """OpenAI's embeddings, L2-normalised. `model`: the encoder's name, or `auto`."""
    body = await json_object(request)
    payload = await unless_gone(request, EmbeddingAnswers.of(services).answer(body, request_id_of(request)))
    return Response(orjson.dumps(payload), media_type="application/json")
