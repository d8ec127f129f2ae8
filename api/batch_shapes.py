"""How the lines of a batch become requests and answers: by the very functions that serve the same request alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from api.answers import Envelope, chat_choice, whole
from api.completion_shapes import text_choice
from api.embedding_answers import EmbeddingAnswers
from api.schemas.chat import parse_chat
from api.schemas.completions import echo_of, parse_completion
from api.services import Services
from domain.chat import ChatRequest
from domain.errors import InvalidRequest
from domain.trace_context import TraceContext, named
from orchestrator.answer import Answer
from orchestrator.batch.ports import Shape

ContextOf = Callable[[str], TraceContext]
"""From a line's request id to its span, at the top of a trace of its own: the same whoever goes on with the line after a kill."""


def batch_shapes(services: Services, *, traced: bool = True) -> Mapping[str, Shape]:
    """The shape of every endpoint that a batch can be for. *traced*: whether lines have spans, where any are exported."""
    spanned = traced and services.spans is not None
    context_of = partial(named, ratio=services.settings.otlp_sample_ratio) if spanned else None
    return {
        "/v1/chat/completions": ChatLines(context_of),
        "/v1/completions": CompletionLines(context_of),
        "/v1/embeddings": EmbeddingAnswers.of(services, context_of=context_of),
    }


@dataclass(frozen=True, slots=True)
class ChatLines:
    """``/v1/chat/completions``. Satisfies ``orchestrator.batch.ports.ChatShape``."""

    context_of: ContextOf | None = None

    def request(self, body: Mapping[str, Any], request_id: str) -> ChatRequest:
        """Raises ``RequestError``."""
        _refuse_stream(body)
        return _spanned(parse_chat(body, request_id=request_id), self.context_of)

    def answer(self, request: ChatRequest, body: Mapping[str, Any], answer: Answer) -> Mapping[str, Any]:  # noqa: ARG002  # the port's
        """The response's body."""
        envelope = Envelope.of(request, prefix="chatcmpl", object="chat.completion")
        return whole(envelope, answer, [chat_choice(choice) for choice in answer.choices], explain=request.options.explain)


@dataclass(frozen=True, slots=True)
class CompletionLines:
    """``/v1/completions``. Satisfies ``orchestrator.batch.ports.ChatShape``."""

    context_of: ContextOf | None = None

    def request(self, body: Mapping[str, Any], request_id: str) -> ChatRequest:
        """Raises ``RequestError``."""
        _refuse_stream(body)
        return _spanned(parse_completion(body, request_id=request_id)[0], self.context_of)

    def answer(self, request: ChatRequest, body: Mapping[str, Any], answer: Answer) -> Mapping[str, Any]:
        """The response's body; ``echo`` is in *body* only."""
        echo = echo_of(body)
        envelope = Envelope.of(request, prefix="cmpl", object="text_completion")
        return whole(envelope, answer, [text_choice(choice, echo=echo) for choice in answer.choices], explain=request.options.explain)


def _spanned(request: ChatRequest, context_of: ContextOf | None) -> ChatRequest:
    return request if context_of is None else replace(request, context=context_of(request.id))


def _refuse_stream(body: Mapping[str, Any]) -> None:
    if body.get("stream"):
        raise InvalidRequest("stream: a batch answers whole, in a file; leave it out", param="stream")
