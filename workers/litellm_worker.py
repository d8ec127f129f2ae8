"""Every provider that does not speak OpenAI's protocol, through LiteLLM."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from domain.chat import ChoiceDelta, Chunk, Usage
from domain.errors import ExpertProtocolError, ExpertUnreachable
from domain.plan import Candidate, ExpertCall
from workers.addresses import AddressPolicy
from workers.credentials import resolve_api_key
from workers.limits import HttpLimits
from workers.litellm_connections import ConnectionBounds, guard_connections, held_to
from workers.litellm_errors import expert_error_of
from workers.reasoning import split_choice, split_stream
from workers.wire import bounded, candidate_of, chunk_of, request_body

_CALLER_ARGUMENTS = frozenset(
    {
        "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens",
        "modalities", "n", "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key", "reasoning_effort",
        "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream_options", "temperature", "tool_choice",
        "tools", "top_logprobs", "top_p", "user", "verbosity", "web_search_options",
    }
)  # fmt: skip
"""OpenAI's chat fields that LiteLLM takes as arguments of the same meaning.

Everything else that it takes is the steward's to say, on the card: an address, a key, headers, other models to fall back to.
A caller who could set them would be sent the provider's key.
"""
_TIMEOUT_MARGIN_S = 5.0
"""LiteLLM's clock comes after the pool's, which alone knows whose limit it was."""
_NEVER_IN_BODY = frozenset({"model", "messages", "stream", "azure_ad_token"})
"""What LiteLLM, or the client below it, reads from ``extra_body`` instead of sending it, or lets it replace the call itself."""


def _import_litellm() -> ModuleType:
    # Without this, importing it fetches its price list from the internet.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True  # or it prints advertising on every error
    litellm.num_retries = None
    guard_connections()
    return litellm


def _told(usage: Usage | None) -> Usage | None:
    """*usage* without the details that LiteLLM makes up where the provider tells none: that all tokens are text and none is reasoning."""
    if usage is None or usage.details.get("completion_tokens_details") != {
        "reasoning_tokens": 0,
        "text_tokens": usage.completion_tokens,
    }:
        return usage
    return replace(usage, details={key: value for key, value in usage.details.items() if key != "completion_tokens_details"})


class LiteLLMWorker:
    """Chat completions of ``provider/model``. Retries are the pool's, so LiteLLM makes none.

    What a caller sends beyond OpenAI's fields goes into the provider's request body as it is; only a card's ``extra_body``
    reaches LiteLLM's own arguments. A field that the provider does not know is an error naming it; with
    ``extra_body: {drop_params: true}`` on a card LiteLLM leaves such fields out instead.
    """

    def __init__(self, limits: HttpLimits, environ: Mapping[str, str], addresses: AddressPolicy | None = None) -> None:
        self._environ = environ
        self._bounds = ConnectionBounds(addresses or AddressPolicy(), limits.connect_timeout_s)
        self._litellm = _import_litellm()

    async def start(self) -> None:
        """Nothing to do: LiteLLM opens its connections when it needs them."""

    async def close(self) -> None:
        """Close the connections that LiteLLM keeps, and let its bookkeeping of finished calls end."""
        await self._litellm.close_litellm_async_clients()

    async def complete(self, call: ExpertCall) -> Candidate:
        payload = await self._call(call, stream=False)
        candidate = candidate_of(bounded(_plain(payload), f"expert {call.expert.id!r}"), call.expert.id)
        return replace(candidate, choices=tuple(map(split_choice, candidate.choices)), usage=_told(candidate.usage) or Usage())

    def stream(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
        return split_stream(self._chunks(call))

    async def _chunks(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
        expert_id, usage, secret = call.expert.id, None, self._secret(call)
        finish_reasons: dict[int, str | None] = {}
        response = await self._call(call, stream=True)
        async with aclosing(response) as events:
            while True:
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    break
                except Exception as error:
                    raise expert_error_of(error, expert_id, secret) from error
                chunk = chunk_of(bounded(_plain(event), f"expert {expert_id!r}"), expert_id)
                finish_reasons |= {c.index: c.finish_reason or finish_reasons.get(c.index) for c in chunk.choices}
                usage = _told(chunk.usage) or usage
                # LiteLLM makes up a finish reason when the provider's stream ends without one: that is half a stream.
                if any(finish_reasons.values()) and _is_made_up(events):
                    break
                if chunk.choices or chunk.extra:
                    yield Chunk(chunk.choices, extra=chunk.extra)
            told = next(filter(None, finish_reasons.values()), None)
            if told is None or _is_made_up(events):
                msg = f"expert {expert_id!r} broke off in the middle of its answer (the stream ended without a finish reason)"
                raise ExpertProtocolError(msg)
        # And of several choices it tells how one of them finished.
        if untold := tuple(ChoiceDelta({}, index, told) for index, reason in finish_reasons.items() if reason is None):
            yield Chunk(untold)
        yield Chunk(usage=usage or Usage())

    async def _call(self, call: ExpertCall, *, stream: bool) -> Any:
        card, secret = call.expert, self._secret(call)
        if card.base_url is not None:
            await self._require_allowed(card.id, card.base_url)
        arguments = _arguments(call, stream=stream)
        arguments |= {
            "api_base": card.base_url,
            "api_key": secret,
            "timeout": card.timeout_s + _TIMEOUT_MARGIN_S,
            "num_retries": 0,
            "max_retries": 0,
            # With tools, LiteLLM looks for its proxy's tool gateway, and fails where the proxy's packages are not installed.
            "_skip_mcp_handler": True,
        }
        try:
            with held_to(self._bounds):
                return await self._litellm.acompletion(**arguments)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            raise expert_error_of(error, card.id, secret) from error

    async def _require_allowed(self, expert_id: str, base_url: str) -> None:
        """Raise ``ExpertUnreachable`` when an address of *base_url*'s host may not be called. Some providers' libraries connect in ways
        that ``held_to`` does not reach, so this looks at what the name means a moment before."""
        parts = urlsplit(base_url)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ExpertUnreachable(f"expert {expert_id!r} cannot be reached ({error.strerror or error})") from error
        for *_, address in found:
            if why := self._bounds.addresses.obstacle(str(address[0])):
                raise ExpertUnreachable(f"expert {expert_id!r} cannot be reached ({why})", retryable=False)

    def _secret(self, call: ExpertCall) -> str | None:
        return resolve_api_key(call.expert.api_key, self._environ)


def _arguments(call: ExpertCall, *, stream: bool) -> dict[str, Any]:
    """LiteLLM's arguments: the caller's OpenAI fields, the card's ``extra_body``, and the caller's other fields as mere data."""
    card = call.expert
    known = {name: value for name, value in call.params.items() if name in _CALLER_ARGUMENTS}
    others = {
        name: value for name, value in call.params.items() if name not in _CALLER_ARGUMENTS | _NEVER_IN_BODY and name not in card.extra_body
    }
    arguments = request_body(replace(call, params=known), stream=stream)
    if body := {**others, **(card.extra_body.get("extra_body") or {})}:
        arguments["extra_body"] = body
    if call.context is not None:
        # Not as ``extra_headers``, which LiteLLM refuses of many providers (Mistral, Gemini, Ollama) as a parameter that they do not have.
        arguments["headers"] = {**(card.extra_body.get("headers") or {}), **call.context.headers}
    return arguments


def _is_made_up(events: Any) -> bool:
    return getattr(events, "received_finish_reason", "") is None and getattr(events, "intermittent_finish_reason", "") is None


def _plain(response: Any) -> Any:
    """LiteLLM's pydantic models as the JSON values that they came from."""
    return response.model_dump(exclude_none=True) if hasattr(response, "model_dump") else response
