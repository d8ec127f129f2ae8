"""An embeddings request on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from domain.errors import InvalidRequest


class EmbeddingsBody(BaseModel):
    """``POST /v1/embeddings``."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


def texts_of(given: str | Sequence[Any], *, max_texts: int) -> list[str]:
    """The texts to encode. Raises ``InvalidRequest`` for anything but one text or a list of texts."""
    texts = [given] if isinstance(given, str) else list(given)
    if not texts:
        raise InvalidRequest("input is an empty list; send at least one text", param="input")
    if len(texts) > max_texts:
        raise InvalidRequest(f"input has {len(texts)} texts; at most {max_texts} a request (CONSILIUM_MAX_EMBEDDING_INPUTS)", param="input")
    for i, text in enumerate(texts):
        if isinstance(text, int | list):
            raise InvalidRequest("input: token ids are not supported, since they belong to another tokenizer; send text", param="input")
        if not isinstance(text, str):
            raise InvalidRequest(f"input[{i}] must be a string", param=f"input[{i}]")
        if not text.strip():
            raise InvalidRequest(f"input[{i}] is empty", param=f"input[{i}]")
    return texts
