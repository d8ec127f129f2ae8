"""Anthropic's Messages API on loopback, as far as a chat needs it: what LiteLLM translates, and what it makes up beside it.

Thinks ``qw`` when the request asks for thinking, and answers ``abcdefghij``, a token a letter.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes.upstream import ErrorEvent, HalfStream, Received, Status

THINKING, ANSWER = "qw", "abcdefghij"
KINDS = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}


@dataclass
class Anthropic:
    """The server's script and what it saw. Faults are used up one a request, then it answers well."""

    base_url: str = ""
    """Without ``/v1``, as LiteLLM wants it."""
    faults: deque[Status | HalfStream | ErrorEvent] = field(default_factory=deque)
    requests: list[Received] = field(default_factory=list)

    async def messages(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(Received(body, request.headers.copy()))
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, Status):
            headers = {"retry-after": fault.retry_after} if fault.retry_after else {}
            return web.json_response(_error(KINDS[fault.status], fault.message), status=fault.status, headers=headers)
        if body.get("stream"):
            return await self._stream(request, body, fault)
        blocks: list[dict[str, Any]] = [{"type": "thinking", "thinking": THINKING, "signature": "s"}] if "thinking" in body else []
        blocks.append({"type": "text", "text": ANSWER[: body["max_tokens"]]})
        return web.json_response({**_message(body), "content": blocks, **_ending(body), "usage": _usage(body, len(blocks[-1]["text"]))})

    async def _stream(self, request: web.Request, body: Mapping[str, Any], fault: HalfStream | ErrorEvent | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def send(kind: str, **content: Any) -> None:
            await response.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **content})}\n\n".encode())

        await send("message_start", message={**_message(body), "content": [], "stop_reason": None, "usage": _usage(body, 1)})
        index = 0
        if "thinking" in body:
            await send("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""})
            for letter in THINKING:
                await send("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": letter})
            await send("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "s"})
            await send("content_block_stop", index=0)
            index = 1
        await send("content_block_start", index=index, content_block={"type": "text", "text": ""})
        await send("ping")
        for position, letter in enumerate(ANSWER[: body["max_tokens"]]):
            if isinstance(fault, HalfStream) and position == fault.after:
                return response
            if isinstance(fault, ErrorEvent) and position == fault.after:
                await send("error", error={"type": "overloaded_error", "message": "the engine died"})
                return response
            await send("content_block_delta", index=index, delta={"type": "text_delta", "text": letter})
        await send("content_block_stop", index=index)
        said = len(ANSWER[: body["max_tokens"]])
        await send("message_delta", delta=_ending(body), usage={"output_tokens": said})
        await send("message_stop")
        return response


def _message(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": "msg_stub", "type": "message", "role": "assistant", "model": body["model"]}


def _ending(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"stop_reason": "max_tokens" if body["max_tokens"] < len(ANSWER) else "end_turn", "stop_sequence": None}


def _usage(body: Mapping[str, Any], num_said: int) -> dict[str, int]:
    return {"input_tokens": sum(len(str(message["content"])) for message in body["messages"]), "output_tokens": num_said}


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


@asynccontextmanager
async def running_anthropic() -> AsyncIterator[Anthropic]:
    """A server on a free port of loopback."""
    server = Anthropic()
    application = web.Application()
    application.router.add_post("/v1/messages", server.messages)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        server.base_url = f"http://{host}:{port}"
        yield server
    finally:
        await runner.cleanup()
