"""Embeddings, for requests that come alone and for lines of batches."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from api.metrics import Metrics
from api.schemas.embeddings import EmbeddingsBody, texts_of
from api.schemas.validation import validate
from api.services import Services
from domain.errors import InvalidRequest, ModelNotFound

if TYPE_CHECKING:
    from routers.encoder import Encoder

_ANY_MODEL = "auto"
INLINE_TEXTS = 64
"""Vectors that are written down on the spot, in a millisecond; of more, a thread does it, so that others are answered meanwhile."""


@dataclass(frozen=True, slots=True)
class EmbeddingAnswers:
    """The encoder that routing uses, in OpenAI's shapes. Satisfies ``orchestrator.batch.ports.DirectShape``."""

    encoder: Encoder
    model: str
    """What the encoder is called, beside its id and ``auto``."""
    max_inputs: int
    metrics: Metrics

    @classmethod
    def of(cls, services: Services) -> EmbeddingAnswers:
        return cls(services.encoder, services.settings.encoder, services.settings.max_embedding_inputs, services.metrics)

    def check(self, body: Mapping[str, Any]) -> None:
        """Raises ``RequestError`` for a body that it does not take, ``NotReady`` while the encoder loads."""
        self._texts(validate(EmbeddingsBody, body))

    async def answer(self, body: Mapping[str, Any], request_id: str) -> dict[str, Any]:  # noqa: ARG002  # the port's signature
        """The response's body. Raises like ``check``, and what the encoder raises."""
        return await self.answer_to(validate(EmbeddingsBody, body))

    async def answer_to(self, asked: EmbeddingsBody, *, num_tokens: int | None = None) -> dict[str, Any]:
        """The same for a body that was read already, and whose tokens may have been counted."""
        texts = self._texts(asked)
        began = time.perf_counter()
        vectors = (await self.encoder.encode(texts)).astype("<f4", copy=False)
        if num_tokens is None:
            num_tokens = await self.encoder.count_tokens(texts)
        self.metrics.embedded(model=self.model, seconds=time.perf_counter() - began, num_tokens=num_tokens)

        def embedding(i: int) -> Any:
            return base64.b64encode(vectors[i].tobytes()).decode() if asked.encoding_format == "base64" else vectors[i].tolist()

        def data() -> list[dict[str, Any]]:
            return [{"object": "embedding", "index": i, "embedding": embedding(i)} for i in range(len(texts))]

        return {
            "object": "list",
            "data": data() if len(texts) <= INLINE_TEXTS else await asyncio.to_thread(data),
            "model": self.model,
            "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
        }

    @staticmethod
    async def encoded(answer: Mapping[str, Any]) -> bytes:
        """*answer* as JSON. Of many vectors each for itself: nothing else runs in the process while one value is written."""
        if len(answer["data"]) <= INLINE_TEXTS:
            return orjson.dumps(answer)

        def joined() -> bytes:
            head, tail = orjson.dumps({**answer, "data": []}).split(b'"data":[]', 1)
            return b'%b"data":[%b]%b' % (head, b",".join(map(orjson.dumps, answer["data"])), tail)

        return await asyncio.to_thread(joined)

    async def count_tokens(self, asked: EmbeddingsBody) -> int:
        """Of all its texts. Raises like ``check``."""
        return await self.encoder.count_tokens(self._texts(asked))

    def _texts(self, asked: EmbeddingsBody) -> Sequence[str]:
        names = (self.model, self.encoder.encoder_id, _ANY_MODEL)
        if asked.model not in names:
            message = f"the embedding model {asked.model!r} does not exist; known are {', '.join(dict.fromkeys(names))}"
            raise ModelNotFound(message, param="model")
        if asked.dimensions is not None and asked.dimensions != self.encoder.dimensions:
            raise InvalidRequest(
                f"dimensions: {asked.model} has {self.encoder.dimensions} and cannot be cut to {asked.dimensions}; leave it out",
                param="dimensions",
            )
        return texts_of(asked.input, max_texts=self.max_inputs)
