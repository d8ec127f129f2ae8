"""How the lines of a batch become requests and answers: by the very functions that serve the same request alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.answers import Envelope, chat_choice, whole
from api.completion_shapes import text_choice
from api.embedding_answers import EmbeddingAnswers
from api.schemas.chat import parse_chat
from api.schemas.completions import echo_of, parse_completion
from api.services import Services
from domain.chat import ChatRequest
from domain.errors import InvalidRequest
from orchestrator.answer import Answer
from orchestrator.batch.ports import Shape


def batch_shapes(services: Services) -> Mapping[str, Shape]:
    """The shape of every endpoint that a batch can be for."""
    return {
        "/v1/chat/completions": ChatLines(),
        "/v1/completions": CompletionLines(),
        "/v1/embeddings": EmbeddingAnswers.of(services),
    }


class ChatLines:
    """``/v1/chat/completions``. Satisfies ``orchestrator.batch.ports.ChatShape``."""

    def request(self, body: Mapping[str, Any], request_id: str) -> ChatRequest:
        """Raises ``RequestError``."""
        _refuse_stream(body)
        return parse_chat(body, request_id=request_id)

    def answer(self, request: ChatRequest, body: Mapping[str, Any], answer: Answer) -> Mapping[str, Any]:  # noqa: ARG002  # the port's
        """The response's body."""
        envelope = Envelope.of(request, prefix="chatcmpl", object="chat.completion")
        return whole(envelope, answer, [chat_choice(choice) for choice in answer.choices], explain=request.options.explain)


class CompletionLines:
    """``/v1/completions``. Satisfies ``orchestrator.batch.ports.ChatShape``."""

    def request(self, body: Mapping[str, Any], request_id: str) -> ChatRequest:
        """Raises ``RequestError``."""
        _refuse_stream(body)
        return parse_completion(body, request_id=request_id)[0]

    def answer(self, request: ChatRequest, body: Mapping[str, Any], answer: Answer) -> Mapping[str, Any]:
        """The response's body; ``echo`` is in *body* only."""
        echo = echo_of(body)
        envelope = Envelope.of(request, prefix="cmpl", object="text_completion")
        return whole(envelope, answer, [text_choice(choice, echo=echo) for choice in answer.choices], explain=request.options.explain)


def _refuse_stream(body: Mapping[str, Any]) -> None:
    if body.get("stream"):
        raise InvalidRequest("stream: a batch answers whole, in a file; leave it out", param="stream")
