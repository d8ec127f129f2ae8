"""OpenAI's shapes of an answer, for chat and for plain completions, whole and in pieces."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from api import sse
from api.explain import explain_object, usage_object
from domain.chat import ChatRequest, Choice, ChoiceDelta, Chunk
from domain.trace import Trace
from orchestrator.answer import Answer, Progress

Shape = Callable[[ChoiceDelta], dict[str, Any]]
"""One choice of a chunk, as it goes out."""

_RESERVED = frozenset({"id", "object", "created", "model", "choices", "usage", "consilium"})
"""Top-level fields that are ours; an expert's own value for them is not passed on."""


_MAX_TOGETHER = 65_536
"""Bytes of events that are sent at once, at most: about what a socket takes."""


class Stream(Protocol):
    """What is needed of ``orchestrator.stream.AnswerStream``."""

    @property
    def trace(self) -> Trace: ...
    @property
    def has_next(self) -> bool: ...
    def __aiter__(self) -> AsyncIterator[Chunk | Progress]: ...


@dataclass(frozen=True, slots=True)
class Envelope:
    """The fields that every piece of one answer shares. ``model`` is the name that was asked for; who answered is told
    by the headers and by the object ``consilium``."""

    id: str
    object: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, request: ChatRequest, *, prefix: str, object: str) -> Envelope:  # noqa: A002 - OpenAI's name
        return cls(f"{prefix}-{request.id}", object, request.model)

    def wrap(self, choices: Sequence[Mapping[str, Any]], extra: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        passed = {key: value for key, value in extra.items() if key not in _RESERVED} if extra else {}
        return {"id": self.id, "object": self.object, "created": self.created, "model": self.model, "choices": choices, **passed, **more}


def whole(envelope: Envelope, answer: Answer, choices: Sequence[Mapping[str, Any]], *, explain: bool) -> dict[str, Any]:
    """A finished answer."""
    more: dict[str, Any] = {"usage": usage_object(answer.usage)}
    if explain:
        more["consilium"] = explain_object(answer.trace)
    return envelope.wrap(choices, answer.extra, **more)


def chat_choice(choice: Choice) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "refusal": None, "annotations": [], **choice.message}
    return {**choice.extra, "index": choice.index, "message": message, "logprobs": choice.logprobs, "finish_reason": choice.finish_reason}


def chat_pieces() -> Shape:
    """Shapes the choices of one chat stream: the first delta of each choice carries the role, later ones do not."""
    begun: set[int] = set()

    def shape(piece: ChoiceDelta) -> dict[str, Any]:
        delta = {key: value for key, value in piece.delta.items() if key != "role"}
        if piece.index not in begun:
            begun.add(piece.index)
            delta = {"role": "assistant", **delta}
            delta.setdefault("content", "")
        return {**piece.extra, "index": piece.index, "delta": delta, "logprobs": piece.logprobs, "finish_reason": piece.finish_reason}

    return shape


async def frames(stream: Stream, envelope: Envelope, shape: Shape, *, include_usage: bool, explain: bool) -> AsyncGenerator[bytes, None]:
    """The events of one answer, ``[DONE]`` last; those that are there together come together.

    The usage chunk (``choices: []``) comes only when it was asked for, since many clients cannot read one. With *explain* the
    last chunk carries ``consilium``: the chunk that finishes the answer is held back until the trace is complete. For the same
    clients, what an expert tells in a chunk without choices goes out with the next one that has some.
    """
    null_usage = {"usage": None} if include_usage else {}
    held: dict[str, Any] | None = None
    untold: dict[str, Any] = {}
    told_before: set[str] = set()
    ready = bytearray()
    async for event in stream:
        if isinstance(event, Progress):
            yield sse.comment(event.text)
            continue
        if not event.choices:  # among them an expert's own usage chunk: the sum over all calls comes at the end
            untold |= {key: value for key, value in event.extra.items() if key not in told_before | _RESERVED}
            if ready and not stream.has_next:
                yield bytes(ready)
                ready.clear()
            continue
        if held is not None:
            ready += sse.data(held)
            held = None
        if untold or event.extra:
            extra, untold = {**untold, **event.extra}, {}
            told_before |= extra.keys()
        else:
            extra = {}
        chunk = envelope.wrap([shape(piece) for piece in event.choices], extra, **null_usage)
        if explain and not include_usage and any(piece.finish_reason for piece in event.choices):
            held = chunk
        else:
            ready += sse.data(chunk)
        if ready and (len(ready) >= _MAX_TOGETHER or not stream.has_next):
            yield bytes(ready)
            ready.clear()
    if ready:
        yield bytes(ready)
    trace = stream.trace
    told = {"consilium": explain_object(trace)} if explain else {}
    if include_usage:
        yield sse.data(envelope.wrap([], untold, usage=usage_object(trace.usage), **told))
    elif explain or untold:
        yield sse.data((held or envelope.wrap([shape(ChoiceDelta({}))], {})) | untold | told)
    yield sse.DONE
