"""A real OpenAI-compatible server on loopback: answers as told, and fails as told.

``speaker`` thinks ``qw`` and answers ``abcdefghij``; ``endless`` says ``klmklm…`` until it may not. A token is a character.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

SPEAKER_TOKENS = ("<think>", "q", "w", "</think>", *"abcdefghij")
ENDLESS_TOKENS = "klm"
MAX_MODEL_LEN = 4096


@dataclass(frozen=True, slots=True)
class Stall:
    """Says *after* tokens of a stream (none of a plain answer), then nothing until the client goes away."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class HalfStream:
    """Ends the answer in the middle: politely, or by cutting the connection."""

    after: int = 3
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Garbage:
    """Answers 200 with something that is not OpenAI's."""

    body: str = "<html>it works!</html>"


@dataclass(frozen=True, slots=True)
class NotAStream:
    """Answers 200 with a body that has no events, although a stream was asked for."""

    body: str = "<html>it works!</html>"
    content_type: str = "text/html"


@dataclass(frozen=True, slots=True)
class Status:
    """Answers with an HTTP error."""

    status: int
    retry_after: str | None = None
    message: str = "scripted"
    code: str | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """Opens a stream and tells an error in it, as vLLM does when an engine dies."""

    after: int = 2


@dataclass(frozen=True, slots=True)
class Hangup:
    """Closes the connection without a word."""


Fault = Stall | HalfStream | Garbage | NotAStream | Status | ErrorEvent | Hangup


@dataclass(frozen=True, slots=True)
class Received:
    """One request. Header names may be written in any case."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]


@dataclass
class Upstream:
    """The server's script and what it saw. Faults are used up one a request (None: it answers well), then it answers well."""

    base_url: str = ""
    faults: deque[Fault | None] = field(default_factory=deque)
    requests: list[Received] = field(default_factory=list)
    num_open: int = 0
    max_open: int = 0
    num_connections: int = 0
    pace: asyncio.Semaphore | None = None
    """When set, each token of a stream waits for a ``release``."""
    models: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"id": "speaker-lora", "object": "model", "owned_by": "stub", "parent": "speaker", "max_model_len": None},
            {"id": "speaker", "object": "model", "owned_by": "stub", "parent": None, "max_model_len": MAX_MODEL_LEN},
        ]
    )
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _connections: set[object] = field(default_factory=set)

    async def until_idle(self) -> None:
        """Wait until no request is being answered."""
        while self.num_open:
            self._changed.clear()
            await self._changed.wait()

    async def until_open(self, num: int) -> None:
        """Wait until *num* requests are being answered at once."""
        while self.num_open < num:
            self._changed.clear()
            await self._changed.wait()

    # --- the server ---

    async def list_models(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": self.models})

    async def page(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>a page for people</html>", content_type="text/html")

    async def moved(self, _: web.Request) -> web.StreamResponse:
        raise web.HTTPMovedPermanently("/page/models")

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(Received(body, request.headers.copy()))
        if request.transport not in self._connections:
            self._connections.add(request.transport)
            self.num_connections += 1
        fault = self.faults.popleft() if self.faults else None
        self._count(1)
        try:
            return await self._answer(request, body, fault)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self.num_open += change
        self.max_open = max(self.max_open, self.num_open)
        self._changed.set()

    async def _answer(self, request: web.Request, body: dict[str, Any], fault: Fault | None) -> web.StreamResponse:
        match fault:
            case Status(status, retry_after, message, code, param):
                headers = {"Retry-After": retry_after} if retry_after else {}
                error = {"message": message, "code": code, "type": "stub", "param": param}
                return web.json_response({"error": error}, status=status, headers=headers)
            case NotAStream(text, content_type):
                return web.Response(text=text, content_type=content_type)
            case Hangup():
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case Garbage(text) if not body.get("stream"):
                return web.Response(text=text)
        prompt_tokens = sum(len(str(message.get("content"))) for message in body["messages"])
        if prompt_tokens > MAX_MODEL_LEN:
            said = f"This model's maximum context length is {MAX_MODEL_LEN} tokens. However, your prompt has {prompt_tokens} tokens."
            return web.json_response({"object": "error", "message": said, "type": "BadRequestError", "code": 400}, status=400)
        if body.get("stream"):
            return await self._stream(request, body, fault, prompt_tokens)
        if isinstance(fault, Stall):
            await asyncio.Event().wait()
        return self._plain(body, prompt_tokens)

    def _plain(self, body: dict[str, Any], prompt_tokens: int) -> web.Response:
        choices, num_tokens = [], 0
        for index in range(body.get("n") or 1):
            tokens = list(_tokens(body))
            num_tokens += len(tokens)
            message: dict[str, Any] = {"role": "assistant", "content": "".join(token for token, _ in tokens)}
            if name := _forced_tool(body):
                call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": message["content"]}}
                message = {"role": "assistant", "content": None, "tool_calls": [call]}
            logprobs = {"content": [_logprob(token) for token, _ in tokens]} if body.get("logprobs") else None
            reason = tokens[-1][1]
            choices.append({"index": index, "message": message, "finish_reason": reason, "logprobs": logprobs})
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": num_tokens, "total_tokens": prompt_tokens + num_tokens}
        return web.json_response({**_envelope("chat.completion", body), "choices": choices, "usage": usage})

    async def _stream(self, request: web.Request, body: dict[str, Any], fault: Fault | None, prompt_tokens: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def send(choices: list[dict[str, Any]], **more: Any) -> None:
            event = {**_envelope("chat.completion.chunk", body), "choices": choices, **more}
            await response.write(f"data: {json.dumps(event)}\n\n".encode())

        num = body.get("n") or 1
        name = _forced_tool(body)
        for index in range(num):
            await send([{"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
            if name:
                call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
                await send([{"index": index, "delta": {"tool_calls": [call]}, "finish_reason": None}])
        num_tokens = 0
        for position, (token, reason) in enumerate(_tokens(body)):
            if await self._misbehaves(request, response, fault, position):
                return response
            if self.pace is not None:
                await self.pace.acquire()
            for index in range(num):
                num_tokens += 1
                delta = {"tool_calls": [{"index": 0, "function": {"arguments": token}}]} if name else {"content": token}
                logprobs = {"content": [_logprob(token)]} if body.get("logprobs") else None
                await send([{"index": index, "delta": delta, "finish_reason": None, "logprobs": logprobs}])
                if reason:
                    await send([{"index": index, "delta": {}, "finish_reason": reason}])
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": num_tokens, "total_tokens": prompt_tokens + num_tokens}
        if (body.get("stream_options") or {}).get("include_usage"):
            await send([], usage=usage)
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _misbehaves(self, request: web.Request, response: web.StreamResponse, fault: Fault | None, position: int) -> bool:
        """Carry out *fault* if it is its turn; whether the answer ends with it."""
        match fault:
            case Stall(after) if position == after:
                await asyncio.Event().wait()
            case HalfStream(after, cut) if position == after:
                if cut:
                    assert request.transport is not None
                    request.transport.abort()
                return True
            case Garbage(text):
                await response.write(f"data: {text}\n\n".encode())
                return True
            case ErrorEvent(after) if position == after:
                event = {"error": {"message": "the engine died", "type": "InternalServerError", "code": 500}}
                await response.write(f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode())
                return True
        return False


def _envelope(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-stub", "object": kind, "created": 1, "model": body["model"], "system_fingerprint": "fp_stub"}


def _logprob(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5, "bytes": list(token.encode()), "top_logprobs": []}


def _forced_tool(body: Mapping[str, Any]) -> str | None:
    choice = body.get("tool_choice")
    if choice == "required":
        return str(body["tools"][0]["function"]["name"])
    return str(choice["function"]["name"]) if isinstance(choice, Mapping) else None


def _tokens(body: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """The answer's tokens; the last with its finish reason."""
    source: Iterator[str] = itertools.cycle(ENDLESS_TOKENS) if body["model"] == "endless" else iter(SPEAKER_TOKENS)
    if _forced_tool(body) or (body.get("response_format") or {}).get("type") in ("json_schema", "json_object"):
        source = iter('{"city": "abc"}')
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or 2000
    stop = body.get("stop") or []
    said, taken = "", []
    stopped = False
    for token in itertools.islice(source, limit):
        said += token
        if hit := next((mark for mark in ([stop] if isinstance(stop, str) else stop) if mark in said), None):
            del taken[len(taken) - len(hit) + 1 :]
            stopped = True
            break
        taken.append(token)
    ended = stopped or next(source, None) is None
    finish = "tool_calls" if _forced_tool(body) else "stop"
    yield from ((token, None) for token in taken[:-1])
    yield (taken[-1] if taken else ""), finish if ended else "length"


@asynccontextmanager
async def running_upstream() -> AsyncIterator[Upstream]:
    """A server on a free port of loopback."""
    upstream = Upstream()
    application = web.Application()
    application.router.add_post("/v1/chat/completions", upstream.chat)
    application.router.add_get("/v1/models", upstream.list_models)
    application.router.add_get("/page/models", upstream.page)
    application.router.add_get("/moved/models", upstream.moved)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        upstream.base_url = f"http://{host}:{port}/v1"
        yield upstream
    finally:
        await runner.cleanup()
