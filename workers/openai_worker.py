"""OpenAI-compatible servers (vLLM above all) over HTTP connections that are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import aiohttp
import orjson

from domain.chat import Chunk, Usage
from domain.errors import ExpertProtocolError, ExpertRejected, ExpertUnreachable
from domain.experts import ExpertCard
from domain.nesting import MAX_LEVELS
from domain.plan import Candidate, ExpertCall
from workers.addresses import AddressPolicy
from workers.aiohttp_errors import ERRORS, translated, translation
from workers.credentials import redacted, resolve_api_key
from workers.http_client import Exchange, HttpClient, Response
from workers.http_errors import error_of_event, error_of_response, tells_error
from workers.limits import HttpLimits
from workers.reasoning import split_choice, split_stream
from workers.sse import DONE, Event, EventTooLarge, SseParser
from workers.wire import bounded, candidate_of, chunk_of, request_body

_SHOWN_BYTES = 120
"""Of an answer that cannot be read: enough to see what kind of page it is."""
_DRAIN_S = 0.2
"""How long the end of a finished stream is waited for, so that its connection can be used again."""


class OpenAIWorker:
    """Chat completions over HTTP. Every field of the request and of the response is passed on."""

    def __init__(self, limits: HttpLimits, environ: Mapping[str, str], addresses: AddressPolicy | None = None) -> None:
        self._limits = limits
        self._environ = environ
        self._addresses = addresses or AddressPolicy()
        self._client: HttpClient | None = None

    async def start(self) -> None:
        self._client = HttpClient(self._limits, self._addresses)

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def complete(self, call: ExpertCall) -> Candidate:
        expert_id, who, secret = call.expert.id, f"expert {call.expert.id!r}", self._secret(call.expert.api_key)
        try:
            async with self._post(call, secret, stream=False) as response:
                await self._raise_for_status(response, who, secret)
                try:
                    body = await _read(response, self._limits.max_response_bytes)
                except ERRORS as error:
                    raise translation(error, who, mid_answer=True) from error
        except ERRORS as error:
            raise translation(error, who) from error
        if body is None:
            msg = f"the answer of {who} is larger than {self._limits.max_response_bytes} bytes"
            raise ExpertProtocolError(msg)
        payload = _json(body, who, secret)
        if isinstance(payload, dict) and tells_error(payload):
            raise error_of_event(who, payload, secret=secret)
        return candidate_of(payload, expert_id, shape=split_choice)

    def stream(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
        return split_stream(self._chunks(call))

    async def get_json(self, url: str, api_key: str | None, *, who: str) -> object:
        """The JSON document at *url*; *who* stands for the server in errors."""
        secret = self._secret(api_key)
        with translated(who):
            async with self._opened().get(url, _authorization(secret)) as response:
                await self._raise_for_status(response, who, secret)
                body = await _read(response, self._limits.max_response_bytes)
        return _json(body or b"", who, secret)

    async def _chunks(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
        expert_id, who, secret, usage = call.expert.id, f"expert {call.expert.id!r}", self._secret(call.expert.api_key), None
        with translated(who):
            async with self._post(call, secret, stream=True) as response, aclosing(self._events(response, who, secret)) as events:
                await self._raise_for_status(response, who, secret)
                async for event in events:
                    payload = _json(event.data, who, secret)
                    if isinstance(payload, dict) and tells_error(payload):  # no name for the error: the frame would hold what holds it
                        raise error_of_event(who, payload, secret=secret)
                    chunk = chunk_of(payload, expert_id)
                    usage = chunk.usage or usage  # some servers tell a running total with every chunk
                    if chunk.usage is None:
                        if chunk.choices or chunk.extra:
                            yield chunk
                    elif chunk.choices or chunk.extra:
                        yield Chunk(chunk.choices, extra=chunk.extra)
        yield Chunk(usage=usage or Usage())

    async def _events(self, response: Response, who: str, secret: str | None) -> AsyncGenerator[Event, None]:
        """The events up to ``[DONE]``; anything else than that at the end is half a stream, or none at all."""
        parser = SseParser(self._limits.max_response_bytes)
        has_events, opening, shown = False, b"", _SHOWN_BYTES + len(secret or "")
        with translated(who, mid_answer=True):
            while True:
                piece = await response.content.readany()  # how long that may take is the pool's to say
                if len(opening) < shown:
                    opening += piece[: shown - len(opening)]
                try:
                    events = parser.feed(piece) if piece else parser.finish()
                except EventTooLarge as error:
                    raise ExpertProtocolError(f"{who}: {error}") from error
                for event in events:
                    has_events = True
                    if event.data.strip() == DONE:
                        await _drain(response)
                        return
                    yield event
                if not piece:
                    raise ExpertProtocolError(_half(who) if has_events else _no_stream(who, response.content_type, opening, secret))

    def _post(self, call: ExpertCall, secret: str | None, *, stream: bool) -> Exchange:
        """The response to *call*. Leaving early closes the connection, which is how servers learn to stop."""
        headers = {"X-Request-Id": call.request_id}
        if call.context is not None:
            headers["traceparent"] = call.context.traceparent
            if call.context.state is not None:
                headers["tracestate"] = call.context.state
        if secret:
            headers |= _authorization(secret)
        try:
            body = orjson.dumps(request_body(call, stream=stream), option=orjson.OPT_NON_STR_KEYS)
        except TypeError as error:  # more than 64 bits, half a surrogate pair
            msg = f"the request cannot be written as JSON for expert {call.expert.id!r}: {error}"
            raise ExpertRejected(msg) from error
        return self._opened().post(_endpoint(call.expert), headers, body)

    async def _raise_for_status(self, response: Response, who: str, secret: str | None) -> None:
        if not 200 <= response.status < 300:
            said = await response.content.read(self._limits.max_error_bytes)
            raise error_of_response(who, response.status, said, response.headers, secret=secret)

    def _secret(self, reference: str | None) -> str | None:
        return resolve_api_key(reference, self._environ)

    def _opened(self) -> HttpClient:
        if self._client is None:
            msg = "the HTTP worker is not running"
            raise ExpertUnreachable(msg)
        return self._client


def _authorization(secret: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"} if secret else {}


def _half(who: str) -> str:
    return f"{who} broke off in the middle of its answer (the stream ended without {DONE})"


def _no_stream(who: str, content_type: str, opening: bytes, secret: str | None) -> str:
    came = f"{content_type}: {_shown(opening, secret)}" if opening else "an empty body"
    return f"{who} was asked for a stream and sent something else ({came})"


def _endpoint(card: ExpertCard) -> str:
    if not card.base_url:
        msg = f"expert {card.id!r} has no base_url; set it to the server's address with its /v1"
        raise ExpertUnreachable(msg, retryable=False)
    return f"{card.base_url.rstrip('/')}/chat/completions"


def _shown(body: bytes, secret: str | None) -> str:
    more = len(secret or "")  # a secret that the cut goes through is one still
    told = redacted(body[: _SHOWN_BYTES + more].decode("utf-8", "replace"), secret)
    return repr(" ".join(told[:_SHOWN_BYTES].split()))


def _json(body: bytes | str, who: str, secret: str | None) -> Any:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        msg = f"{who} answered something that is not JSON: {_shown(body.encode() if isinstance(body, str) else body, secret)}"
        raise ExpertProtocolError(msg) from error
    # Where there are fewer brackets than levels nothing has to be looked at: so it is with most events of a stream.
    num = body.count("[") + body.count("{") if isinstance(body, str) else body.count(b"[") + body.count(b"{")
    return payload if num <= MAX_LEVELS else bounded(payload, who)


async def _read(response: Response, max_bytes: int) -> bytes | None:
    """The whole body; None when it is larger than *max_bytes*."""
    content = response.content
    if content.is_eof() and content.exception() is None:  # an answer that is short comes with its head
        return content.read_nowait() if content.total_bytes <= max_bytes else None
    pieces, size = [], 0
    async for piece in content.iter_any():
        size += len(piece)
        if size > max_bytes:
            return None
        pieces.append(piece)
    return b"".join(pieces)


async def _drain(response: Response) -> None:
    """Read the end of the body, if it comes soon: a connection with a response that is not read to its end is not used again."""
    if response.content.is_eof():
        return
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_DRAIN_S):
            await response.content.readany()
