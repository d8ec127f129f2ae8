"""A proxy on real sockets that misbehaves, in a thread with an event loop of its own: nothing that it does waits for the code under test.

In front of an HTTP server (``http=True``) each request meets its own fault, in front of anything else (a database) each link does. What it
passes on it passes as it came, byte for byte; every answer ends its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_MAX_BODY = 32 * 2**20
_PIECE = 65_536
_START_TIMEOUT_S = 10.0
PATIENCE_S = 60.0
"""Longest wait for a fact; a loaded machine needs some seconds of it."""
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection:[^\r]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody listens. Connections that there are, are reset. For ``behave`` only: it happens before there is a request."""


@dataclass(frozen=True, slots=True)
class StallFirst:
    """Takes the request and says nothing until the caller goes away."""


@dataclass(frozen=True, slots=True)
class StallBetween:
    """Passes *after* events on (of a plain answer half of it), then says nothing until the caller goes away."""

    after: int = 3


@dataclass(frozen=True, slots=True)
class Held:
    """Passes *after* events on (of a plain answer half of it), and the rest when the proxy is told to ``release`` it."""

    after: int = 3


@dataclass(frozen=True, slots=True)
class Half:
    """Passes *after* events on (of a plain answer half of it), then closes the connection as if that were all."""

    after: int = 3


@dataclass(frozen=True, slots=True)
class Reset:
    """The same, but resets the connection; with 0 before the first byte."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class Garbage:
    """Answers 200 with what no client can read."""

    body: bytes = b"\x00\xff<html>it works!</html>"


@dataclass(frozen=True, slots=True)
class Status:
    """Answers with an HTTP error."""

    status: int = 500
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Trickle:
    """Passes the whole answer on, *size* bytes at a time with a pause of *pause_s* after each."""

    size: int = 64
    pause_s: float = 0.01


@dataclass(frozen=True, slots=True)
class Slow:
    """Waits *seconds* before a request is passed on; of a link, before each piece in either direction."""

    seconds: float = 0.5


Fault = Refuse | StallFirst | StallBetween | Held | Half | Reset | Garbage | Status | Trickle | Slow
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class FaultProxy:
    """Made by ``fault_proxy``. Every method may be called from any thread."""

    def __init__(self, target: Callable[[], str | tuple[str, int]], *, http: bool) -> None:
        self._target, self._is_http = target, http
        self._script: deque[Fault | None] = deque()
        self._default: Fault | None = None
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._released = asyncio.Event()
        self.port = 0
        self.num_requests = 0
        """Requests, or links, that came."""
        self.num_busy = 0
        """Those of them that are not over."""
        self.num_met: dict[str, int] = {}
        """By fault: how many met it. Those that met none are under ``ok``."""

    @property
    def base_url(self) -> str:
        """Of an OpenAI-compatible server, with its ``/v1``."""
        return f"http://127.0.0.1:{self.port}/v1"

    def once(self, *faults: Fault | None) -> None:
        """The next requests meet these, one each (None: no fault); then it is again as ``behave`` has said."""
        with self._changed:
            self._script.extend(faults)

    def behave(self, fault: Fault | None) -> None:
        """From now on every request meets *fault*; None: none does. Returns when it is so."""
        with self._changed:
            self._script.clear()
            self._default = fault
        self._call(self._refuse() if isinstance(fault, Refuse) else self._listen())

    def release(self) -> None:
        """Let what is ``Held`` go on."""
        self._loop.call_soon_threadsafe(self._released.set)

    def cut(self) -> None:
        """Reset every connection that there is."""
        self._call(self._reset_all())

    def until_idle(self, timeout_s: float = PATIENCE_S) -> bool:
        """Wait until no request is being answered; whether that came true."""
        return self._until(lambda: not self.num_busy, timeout_s)

    def until_requests(self, num: int, timeout_s: float = PATIENCE_S) -> bool:
        """Wait until *num* requests came; whether that came true."""
        return self._until(lambda: self.num_requests >= num, timeout_s)

    def start(self) -> None:
        self._thread.start()
        self._call(self._listen())

    def stop(self) -> None:
        self._call(self._refuse())
        self._call(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_TIMEOUT_S)
        self._loop.close()

    # --- in its own thread ---

    def _call(self, work: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_START_TIMEOUT_S)

    def _until(self, fact: Callable[[], bool], timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(fact, timeout_s)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._reset_all()

    async def _reset_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        is_busy = False
        try:
            request = await _request(reader) if self._is_http else b""
            if request is None:
                return
            with self._changed:
                fault = self._script.popleft() if self._script else self._default
                name = "ok" if fault is None else type(fault).__name__
                self.num_met[name] = self.num_met.get(name, 0) + 1
                self.num_requests += 1
                self.num_busy += 1
                is_busy = True
                self._changed.notify_all()
            if self._is_http:
                await self._until_gone(reader, self._answer(request, fault, writer))
            else:
                await self._link(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # either side went away
        finally:
            self._writers.discard(writer)
            writer.close()
            if is_busy:
                with self._changed:
                    self.num_busy -= 1
                    self._changed.notify_all()

    async def _until_gone(self, reader: asyncio.StreamReader, work: Coroutine[Any, Any, object]) -> None:
        """*work*, or until the caller closes its side."""
        working, gone = asyncio.ensure_future(work), asyncio.ensure_future(reader.read(1))
        tasks: set[asyncio.Future[Any]] = {working, gone}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not working.cancelled() and (error := working.exception()) is not None:
            raise error

    async def _answer(self, request: bytes, fault: Fault | None, writer: asyncio.StreamWriter) -> None:
        match fault:
            case StallFirst():
                await asyncio.Event().wait()
            case Reset(after=0):
                _reset(writer)
                return
            case Garbage(body):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body))
                writer.write(body)
                await writer.drain()
                return
            case Status(status, retry_after_s):
                said = b'{"error": {"message": "scripted by the fault proxy", "type": "fault", "code": "scripted"}}'
                after = b"" if retry_after_s is None else b"retry-after: %d\r\n" % retry_after_s
                head = b"HTTP/1.1 %d Scripted\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n"
                writer.write(head % (status, after, len(said)) + said)
                await writer.drain()
                return
            case Slow(seconds):
                await asyncio.sleep(seconds)
        upstream_reader, upstream = await self._connected()
        try:
            upstream.write(request)
            await upstream.drain()
            await self._relay(upstream_reader, writer, fault)
        finally:
            upstream.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault | None) -> None:
        """Pass an answer on, as far as *fault* lets it."""
        self._released.clear()
        head = await reader.readuntil(b"\r\n\r\n")
        is_stream = b"text/event-stream" in head.lower()
        writer.write(head)
        await writer.drain()
        match fault:
            case Trickle(size, pause_s):
                await _pass_all(reader, writer, size=size, pause_s=pause_s)
            case StallBetween(after) | Held(after) | Half(after) | Reset(after):
                await (_pass_events(reader, writer, after) if is_stream else _pass_half(reader, writer, head))
                if isinstance(fault, StallBetween):
                    await asyncio.Event().wait()
                if isinstance(fault, Held):
                    await self._released.wait()
                    await _pass_all(reader, writer)
                if isinstance(fault, Reset):
                    _reset(writer)
            case _:
                await _pass_all(reader, writer)

    async def _connected(self) -> _Streams:
        target = self._target()
        if isinstance(target, str):
            return await asyncio.open_unix_connection(target)
        return await asyncio.open_connection(*target)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await self._connected()
        self._writers.add(there)
        both = [asyncio.ensure_future(self._pipe(reader, there)), asyncio.ensure_future(self._pipe(there_reader, writer))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._writers.discard(there)
            there.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            while isinstance(self._default, StallFirst):
                await asyncio.sleep(0.05)
            if isinstance(self._default, Slow):
                await asyncio.sleep(self._default.seconds)
            writer.write(piece)
            await writer.drain()


async def _pass_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, size: int = _PIECE, pause_s: float = 0.0) -> None:
    while piece := await reader.read(size):
        writer.write(piece)
        await writer.drain()
        if pause_s:
            await asyncio.sleep(pause_s)


async def _pass_events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, num: int) -> None:
    for _ in range(num):
        writer.write(await reader.readuntil(b"\n\n"))
        await writer.drain()


async def _pass_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
    found = _LENGTH.search(head)
    writer.write(await reader.readexactly(max(1, int(found[1]) // 2 if found else 1)))
    await writer.drain()


async def _request(reader: asyncio.StreamReader) -> bytes | None:
    """One whole request, which is to be the last of its connection; None when the caller closed instead."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    found = _LENGTH.search(head)
    length = int(found[1]) if found else 0
    if length > _MAX_BODY:
        return None
    body = await reader.readexactly(length)
    return _CONNECTION.sub(b"", head)[:-2] + b"connection: close\r\n\r\n" + body


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side gets RST."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if connection is not None and connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport = writer.transport
    if not transport.is_closing():
        transport.abort()


@contextmanager
def fault_proxy(target: Callable[[], str | tuple[str, int]], *, http: bool = True) -> Iterator[FaultProxy]:
    """A proxy on a free port of loopback, without faults. *target* is asked for each connection: host and port, or a Unix socket's
    path; what is restarted may be elsewhere."""
    proxy = FaultProxy(target, http=http)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
