"""uvicorn's HTTP protocol with bounds on a request's head, which it has not with httptools, in size or time; and with less to do for a
request: head and body of an answer go out at once, and whoever works for a request can look at its connection without a task."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.connection import CONNECTION
from api.whole_answers import with_whole_answers

MAX_HEAD_BYTES = 65_536
"""Request line and headers. Proxies bound them to 8 or 16 kB; a few long tokens fit four times over."""
HEAD_TIMEOUT_S = 20.0
"""From a connection's first moment, or a further request's first byte, to the end of its head: which comes in one packet, mostly."""
_NO_REQUEST = b"HTTP/1.1 400 Bad Request"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout"
_WANTS_OTHER = b"send the request without the header Upgrade: only HTTP/1.1 is spoken here"
_UPGRADE = re.compile(rb"\nupgrade(?=[ \t]*:)", re.IGNORECASE)
_IGNORED = b"\nx-ignored-upgrade"
_OF_A_BODY = frozenset({b"content-length", b"transfer-encoding"})
_REST = b"\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
_BODY = b'{"error": {"message": "%b", "type": "invalid_request_error", "param": null, "code": "%b"}}'


class HeldHead:
    """A transport that sends the head of an answer together with what follows in the same turn of the loop.

    uvicorn writes both apart: two system calls, and two packets for the caller to read.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head = b""
        for name in ("get_extra_info", "is_closing", "pause_reading", "resume_reading", "set_protocol"):
            setattr(self, name, getattr(transport, name))

    def write(self, data: bytes) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        elif data.startswith(b"HTTP/"):
            self._head = data
            self._loop.call_soon(self._release)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._release()
        self._transport.close()

    def _release(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)


class RequestConnection:
    """Satisfies ``api.connection.Connection`` for one request of a protocol."""

    __slots__ = ("_cycle", "_protocol")

    def __init__(self, protocol: BoundedHttpProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol, self._cycle = protocol, cycle

    @property
    def has_whole_body(self) -> bool:
        return not self._cycle.more_body

    def when_lost(self, tell: Callable[[], None]) -> Callable[[], None]:
        return self._protocol.when_lost(tell)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Answers 431 or 408 and closes the connection when a head is too large or takes too long, 400 when it is none."""

    _has_head = False
    _has_begun = False
    _is_refused = False
    _num_heads = 0
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _is_lost = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = cast(Any, with_whole_answers(cast(Any, self.app)))
        self._watchers = set[Callable[[], None]]()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(HeldHead(transport, self.loop))  # type: ignore[arg-type]
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)
        self._is_lost = True
        for tell in tuple(self._watchers):
            tell()

    def when_lost(self, tell: Callable[[], None]) -> Callable[[], None]:
        """See ``api.connection.Connection``."""
        if self._is_lost:
            self.loop.call_soon(tell)
        self.flow.resume_reading()  # a connection that is not read does not tell that it was closed
        self._watchers.add(tell)
        return partial(self._watchers.discard, tell)

    def data_received(self, data: bytes) -> None:
        is_in_head, num_heads = not self._has_head, self._num_heads
        super().data_received(_without_upgrade(data) if is_in_head else data)
        # A request that came whole has had its head, and is no part of the next one's: its answer may take as long as it takes.
        has_ended = self._has_head or self._num_heads != num_heads
        if not is_in_head or has_ended or self.parser is None or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._is_serving:
            if self._head_bytes > MAX_HEAD_BYTES:
                self.flow.pause_reading()  # refused when the answer that goes out now is complete, which must stay whole
        elif self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_TOO_LARGE, b"the request line and headers are larger than %d bytes" % MAX_HEAD_BYTES, b"headers_too_large")
        elif self._timer is None:
            self._start_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._has_begun and self._timer is None and not self._is_serving and not self.transport.is_closing():
            self._start_timer()

    @property
    def _is_serving(self) -> bool:
        """Whether a request is being answered; what comes meanwhile is the beginning of the next one, or a stray line's end."""
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    def on_message_begin(self) -> None:
        self._has_begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._has_begun, self._has_head, self._head_bytes = False, True, 0
        self._num_heads += 1
        self._stop_timer()
        if self.parser.should_upgrade() and any(name in _OF_A_BODY for name, _ in self.headers):
            self._is_refused = True
            self._refuse(_NO_REQUEST, _WANTS_OTHER, b"invalid_request")
        else:
            super().on_headers_complete()
            self.scope[CONNECTION] = RequestConnection(self, self.cycle)  # type: ignore[literal-required]

    def on_body(self, body: bytes) -> None:
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._has_head = False
        if not self._is_refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """In OpenAI's shape, as every other error."""
        self._refuse(_NO_REQUEST, b"this is no HTTP/1.1 request: " + msg.encode("ascii", "replace"), b"invalid_request")

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if not self._has_begun:  # nobody waits for an answer to nothing
            self.transport.close()
            return
        self._refuse(_TOO_SLOW, b"the request's headers did not arrive within %d s" % HEAD_TIMEOUT_S, b"request_timeout")

    def _refuse(self, status: bytes, message: bytes, code: bytes) -> None:
        self._stop_timer()
        if not self.pipeline and (self.cycle is None or self.cycle.response_complete or not self.cycle.response_started):
            body = _BODY % (message, code)
            self.transport.write(status + _REST % (len(body), body))
        self.transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """*data*, which begins in a request's head, with a wish for another protocol passed over (RFC 9110, 7.8).

    The parser would take the body for one in that protocol, and the request would be served without it: Java's HTTP client wishes for
    HTTP/2 with every request. A header whose name comes in two packets is not found; such a request is refused.
    """
    if _UPGRADE.search(data) is None:
        return data
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(_IGNORED, head) + end + rest
