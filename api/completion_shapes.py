"""``text_completion`` shapes, made from chat choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.answers import Shape
from domain.chat import Choice, ChoiceDelta


def text_choice(choice: Choice, *, echo: str) -> dict[str, Any]:
    return {
        **choice.extra,
        "index": choice.index,
        "text": echo + choice.text,
        "logprobs": text_logprobs(choice.logprobs, offset=len(echo)),
        "finish_reason": choice.finish_reason,
    }


def text_pieces(*, echo: str) -> Shape:
    """Shapes the choices of one stream: each choice begins with *echo*."""
    lengths: dict[int, int] = {}

    def shape(piece: ChoiceDelta) -> dict[str, Any]:
        text = str(piece.delta.get("content") or "")
        before = lengths.get(piece.index)
        if before is None:
            before = len(echo)
            text_out = echo + text
        else:
            text_out = text
        lengths[piece.index] = before + len(text)
        logprobs = text_logprobs(piece.logprobs, offset=before)
        return {**piece.extra, "index": piece.index, "text": text_out, "logprobs": logprobs, "finish_reason": piece.finish_reason}

    return shape


def text_logprobs(logprobs: Any, *, offset: int) -> dict[str, Any] | None:
    """Chat log-probabilities in the shape of plain completions; *offset* is where the first token's text begins."""
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    if not content:
        return None
    tokens: list[str] = []
    values: list[float] = []
    top: list[dict[str, float]] = []
    offsets: list[int] = []
    for entry in content:
        tokens.append(entry["token"])
        values.append(entry["logprob"])
        top.append({other["token"]: other["logprob"] for other in entry.get("top_logprobs") or ()})
        offsets.append(offset)
        offset += len(entry["token"])
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": top, "text_offset": offsets}
