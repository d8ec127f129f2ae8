"""``POST /v1/embeddings``: the encoder that routing uses."""

from __future__ import annotations

import base64
import time
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Depends, Request, Response

from api.body import parsed
from api.dependencies import ReadyServices, require_key
from api.disconnect import unless_gone
from api.openapi import ERRORS, body_of
from api.schemas.embeddings import EmbeddingsBody, texts_of
from api.schemas.validation import validate
from domain.errors import InvalidRequest, ModelNotFound

router = APIRouter(tags=["embeddings"], dependencies=[Depends(require_key)])

_ANY_MODEL = "auto"


@router.post("/v1/embeddings", openapi_extra=body_of(EmbeddingsBody), responses=ERRORS)
async def create_embeddings(request: Request, services: ReadyServices) -> Response:
    """OpenAI's embeddings, L2-normalised. `model`: the encoder's name, or `auto`."""
    body = await parsed(request, partial(validate, EmbeddingsBody))
    encoder = services.encoder
    names = (services.settings.encoder, encoder.encoder_id, _ANY_MODEL)
    if body.model not in names:
        message = f"the embedding model {body.model!r} does not exist; known are {', '.join(dict.fromkeys(names))}"
        raise ModelNotFound(message, param="model")
    if body.dimensions is not None and body.dimensions != encoder.dimensions:
        raise InvalidRequest(
            f"dimensions: {body.model} has {encoder.dimensions} and cannot be cut to {body.dimensions}; leave it out", param="dimensions"
        )
    texts = texts_of(body.input, max_texts=services.settings.max_embedding_inputs)
    began = time.perf_counter()
    vectors = (await unless_gone(request, encoder.encode(texts))).astype("<f4", copy=False)
    num_tokens = await encoder.count_tokens(texts)
    services.metrics.embedded(model=services.settings.encoder, seconds=time.perf_counter() - began, num_tokens=num_tokens)

    def embedding(i: int) -> Any:
        return base64.b64encode(vectors[i].tobytes()).decode() if body.encoding_format == "base64" else vectors[i].tolist()

    payload = {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": embedding(i)} for i in range(len(texts))],
        "model": services.settings.encoder,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }
    return Response(orjson.dumps(payload), media_type="application/json")
