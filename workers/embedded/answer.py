"""What the engine produced, in OpenAI's shapes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from domain.chat import Choice, ChoiceDelta, Message
from workers.embedded.constraint import ToolCall
from workers.embedded.params import Generation
from workers.embedded.sequence import Progress
from workers.embedded.text import Vocabulary, logprobs_json


class ChoiceWriter:
    """Writes one choice, in pieces or whole."""

    def __init__(self, index: int, generation: Generation, vocabulary: Vocabulary) -> None:
        self._index = index
        self._vocabulary = vocabulary
        self._logprobs = generation.top_logprobs is not None
        self._calls_tool = isinstance(generation.constraint, ToolCall)
        self._pending = ""
        self._call_id: str | None = None
        self._opened = False

    def delta(self, progress: Progress) -> ChoiceDelta:
        """The next piece of the choice."""
        piece = progress.piece
        delta: dict[str, Any] = {} if self._opened else {"role": "assistant"}
        self._opened = True
        if piece.reasoning:
            delta["reasoning_content"] = piece.reasoning
        if self._calls_tool:
            delta |= self._call_delta(piece.content)
        elif piece.content:
            delta["content"] = piece.content
        logprobs = logprobs_json(piece.logprobs, self._vocabulary) if self._logprobs and piece.logprobs else None
        return ChoiceDelta(delta, self._index, self._finish_reason(progress.finish_reason), logprobs)

    def whole(self, progress: Progress) -> Choice:
        """The choice, of which *progress* is everything."""
        piece = progress.piece
        message: Message = {"role": "assistant", "content": piece.content}
        if self._calls_tool:
            name, _, arguments = piece.content.partition(" ")
            function = {"name": name, "arguments": arguments}
            message = {"role": "assistant", "content": None, "tool_calls": [{"id": _call_id(), "type": "function", "function": function}]}
        if piece.reasoning:
            message = {**message, "reasoning_content": piece.reasoning}
        logprobs = logprobs_json(piece.logprobs, self._vocabulary) if self._logprobs else None
        return Choice(message, self._index, self._finish_reason(progress.finish_reason), logprobs)

    def _call_delta(self, text: str) -> dict[str, Any]:
        """The name is told once it is whole, the arguments as they come."""
        if self._call_id is not None:
            return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]} if text else {}
        self._pending += text
        name, space, arguments = self._pending.partition(" ")
        if not space:
            return {}
        self._call_id = _call_id()
        function = {"name": name, "arguments": arguments}
        return {"tool_calls": [{"index": 0, "id": self._call_id, "type": "function", "function": function}]}

    def _finish_reason(self, reason: str | None) -> str | None:
        return "tool_calls" if self._calls_tool and reason == "stop" else reason


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


def merged(news: Iterable[Progress]) -> list[Progress]:
    """*news* with what concerns one choice joined: a reader who is slower than the engine gets fewer, larger pieces."""
    by_index: dict[int, Progress] = {}
    for new in news:
        old = by_index.get(new.index)
        piece = old.piece + new.piece if old is not None else new.piece
        by_index[new.index] = Progress(new.index, piece, new.finish_reason, new.num_tokens, new.error)
    return list(by_index.values())
