"""A plain completion request on the wire, translated to a chat of one user message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from api.schemas.chat import Sampling, parse_chat, validated
from domain.chat import ChatRequest
from domain.errors import InvalidRequest


class CompletionBody(Sampling):
    """``POST /v1/completions``. One prompt a request: the prompt becomes the only user message of a chat."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    prompt: str | list[Any]
    echo: bool | None = None
    suffix: str | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


_NOT_PASSED = frozenset({"prompt", "echo", "suffix", "best_of", "logprobs"})


def parse_completion(
    payload: Mapping[str, Any], *, request_id: str, session_id: str | None = None, explain: bool = False
) -> tuple[ChatRequest, str]:
    """*payload* as a ``ChatRequest``, and the text to put before each answer (``echo``). Raises ``InvalidRequest``."""
    body = validated(CompletionBody, payload)
    prompt = _one_prompt(body.prompt)
    if body.suffix:
        raise InvalidRequest("suffix: filling in the middle is not supported; leave it out", param="suffix")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise InvalidRequest("best_of other than n is not supported; use n, or the model 'consilium/panel'", param="best_of")
    chat: dict[str, Any] = {key: value for key, value in payload.items() if key not in _NOT_PASSED}
    chat["messages"] = [{"role": "user", "content": prompt}]
    if body.logprobs is not None:
        chat |= {"logprobs": True, "top_logprobs": body.logprobs}
    request = parse_chat(chat, request_id=request_id, session_id=session_id, explain=explain)
    return request, prompt if body.echo else ""


def echo_of(payload: Mapping[str, Any]) -> str:
    """The text to put before each answer to *payload*, which ``parse_completion`` has taken."""
    return _one_prompt(payload["prompt"]) if payload.get("echo") else ""


def _one_prompt(prompt: str | list[Any]) -> str:
    if isinstance(prompt, list):
        if any(isinstance(part, int | list) for part in prompt):
            raise InvalidRequest("prompt: token ids are not supported, since experts differ in their tokenizers; send text", param="prompt")
        if len(prompt) != 1:
            raise InvalidRequest(f"prompt: one prompt a request, not {len(prompt)}; send one request for each", param="prompt")
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise InvalidRequest("prompt must be a string or a list of one string", param="prompt")
    if not prompt:
        raise InvalidRequest("prompt is empty", param="prompt")
    return prompt
