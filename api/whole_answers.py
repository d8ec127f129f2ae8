"""Answers that are there in one piece, written in one piece, with less to do for each than uvicorn has, which is ready for all kinds."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""What no header may hold, but for the two letters that end a line, which are counted."""
_NAMES = re.compile(rb"[a-z0-9_-]+")
"""As ASGI wants the names of headers, all in one."""
_BODILESS = frozenset({204, 304})


def with_whole_answers(app: ASGIApp) -> ASGIApp:
    """*app*, to be served by uvicorn's ``httptools`` protocol."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        cycle = getattr(send, "__self__", None)
        if isinstance(cycle, RequestResponseCycle):
            send = _WholeAnswer(cycle, send).send
        await app(scope, receive, send)

    return answering


class _WholeAnswer:
    """Stands before the *send* of one *cycle*, uvicorn's request and its response.

    The head of an answer that says how long its body is waits for that body. If the body is all there then, both are written at once.
    Whatever is out of the ordinary goes to uvicorn as it came: streams, other lengths, ``HEAD``, callers that read slowly or have gone
    away, headers that could not be sent.
    """

    __slots__ = ("_cycle", "_send", "_start")

    def __init__(self, cycle: RequestResponseCycle, send: Send) -> None:
        self._cycle, self._send = cycle, send
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        """ASGI's."""
        start, self._start = self._start, None
        if start is None:
            if message["type"] == "http.response.start" and not self._cycle.response_started and _is_ordinary(message, self._cycle):
                self._start = message
            else:
                await self._send(message)
            return
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            body = message.get("body", b"")
            if _has_length(start, body) and self._is_written(start, body):
                return
        await self._send(start)
        await self._send(message)

    def _is_written(self, start: Message, body: bytes) -> bool:
        """Whether the answer went out; if not, nothing of it did."""
        cycle = self._cycle
        if cycle.disconnected or cycle.flow.write_paused:
            return False
        headers = [*cycle.default_headers, *start["headers"]]
        if not cycle.keep_alive:
            headers.append((b"connection", b"close"))
        head = STATUS_LINE[start["status"]] + b"\r\n".join(map(b": ".join, headers))
        # One look at all of them, where uvicorn looks at each name and value: a line's end in one would be a line too many.
        if head.count(b"\n") != len(headers) or head.count(b"\r") != len(headers) or _CONTROL.search(head) is not None:
            return False
        cycle.response_started, cycle.waiting_for_100_continue = True, False
        cycle.transport.write(b"%b\r\n\r\n%b" % (head, body))
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True


def _is_ordinary(start: Message, cycle: RequestResponseCycle) -> bool:
    """Whether what its head says leaves nothing to be worked out."""
    if cycle.access_log or start["status"] in _BODILESS or cycle.scope["method"] == "HEAD":
        return False
    told = dict(start.get("headers", ()))
    if b"content-length" not in told or b"connection" in told or b"transfer-encoding" in told:
        return False
    return _NAMES.fullmatch(b"".join(told)) is not None


def _has_length(start: Message, body: bytes) -> bool:
    return (b"content-length", b"%d" % len(body)) in start["headers"]
