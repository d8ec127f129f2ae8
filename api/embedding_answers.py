"""Embeddings, for requests that come alone and for lines of batches."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from api.metrics import Metrics
from api.schemas.embeddings import EmbeddingsBody, texts_of
from api.schemas.validation import validate
from api.services import Services
from api.spans import CANCELLED, embeddings_span
from domain.errors import ConsiliumError, InvalidRequest, ModelNotFound
from domain.trace_context import TraceContext

if TYPE_CHECKING:
    from api.span_exporter import SpanExporter
    from routers.encoder import Encoder

_ANY_MODEL = "auto"
INLINE_TEXTS = 64
"""Vectors that are written down on the spot, in a millisecond; of more, a thread does it, so that others are answered meanwhile."""


@dataclass(frozen=True, slots=True)
class Whose:
    """Which request it is, as its span tells it."""

    request_id: str
    context: TraceContext | None
    """None: it has no span."""
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingAnswers:
    """The encoder that routing uses, in OpenAI's shapes. Satisfies ``orchestrator.batch.ports.DirectShape``."""

    encoder: Encoder
    model: str
    """What the encoder is called, beside its id and ``auto``."""
    max_inputs: int
    metrics: Metrics
    spans: SpanExporter | None = None
    context_of: Callable[[str], TraceContext] | None = None
    """From a batch's line, by its request id, to its span."""

    @classmethod
    def of(cls, services: Services, *, context_of: Callable[[str], TraceContext] | None = None) -> EmbeddingAnswers:
        settings = services.settings
        return cls(services.encoder, settings.encoder, settings.max_embedding_inputs, services.metrics, services.spans, context_of)

    def check(self, body: Mapping[str, Any]) -> None:
        """Raises ``RequestError`` for a body that it does not take, ``NotReady`` while the encoder loads."""
        self._texts(validate(EmbeddingsBody, body))

    async def answer(self, body: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        """The response's body. Raises like ``check``, and what the encoder raises."""
        context = None if self.context_of is None else self.context_of(request_id)
        return await self.answer_to(validate(EmbeddingsBody, body), Whose(request_id, context))

    async def answer_to(self, asked: EmbeddingsBody, whose: Whose, *, num_tokens: int | None = None) -> dict[str, Any]:
        """The same for a body that was read already, and whose tokens may have been counted."""
        if self.spans is None or whose.context is None:
            return await self._answer(asked, num_tokens)
        started_at, began = time.time(), time.perf_counter()
        answer: dict[str, Any] | None = None
        error_type: str | None = CANCELLED
        try:
            answer, error_type = await self._answer(asked, num_tokens), None
        except Exception as error:
            error_type = error.code if isinstance(error, ConsiliumError) else "internal_error"
            raise
        finally:
            self.spans.add(
                embeddings_span(
                    whose.context,
                    request_id=whose.request_id,
                    model=asked.model if asked.model in self._names else None,
                    started_at=started_at,
                    seconds=time.perf_counter() - began,
                    num_texts=None if answer is None else len(answer["data"]),
                    num_tokens=num_tokens if answer is None else answer["usage"]["prompt_tokens"],
                    dimensions=None if answer is None else self.encoder.dimensions,
                    encoding_format=asked.encoding_format,
                    key_id=whose.key_id,
                    error_type=error_type,
                )
            )
        return answer

    async def _answer(self, asked: EmbeddingsBody, num_tokens: int | None) -> dict[str, Any]:
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

    @property
    def _names(self) -> tuple[str, str, str]:
        return self.model, self.encoder.encoder_id, _ANY_MODEL

    def _texts(self, asked: EmbeddingsBody) -> Sequence[str]:
        if asked.model not in self._names:
            message = f"the embedding model {asked.model!r} does not exist; known are {', '.join(dict.fromkeys(self._names))}"
            raise ModelNotFound(message, param="model")
        if asked.dimensions is not None and asked.dimensions != self.encoder.dimensions:
            raise InvalidRequest(
                f"dimensions: {asked.model} has {self.encoder.dimensions} and cannot be cut to {asked.dimensions}; leave it out",
                param="dimensions",
            )
        return texts_of(asked.input, max_texts=self.max_inputs)
