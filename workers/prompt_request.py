"""aiohttp's request, its small body sent in the turn of the event loop in which it is made."""

from __future__ import annotations

import asyncio
from typing import cast

import aiohttp
from aiohttp.connector import Connection
from aiohttp.payload import BytesPayload

MAX_BYTES = 65_536
"""Of a body that is sent so; a larger one is left to the library, which waits while the server does not take it."""


class _WithBody:
    """A transport while the head is written: what is written to it goes out with *body* behind."""

    __slots__ = ("_body", "_transport")

    def __init__(self, transport: asyncio.Transport, body: bytes) -> None:
        self._transport = transport
        self._body: bytes | None = body

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def write(self, head: bytes) -> None:
        body, self._body = self._body, None
        if body is None:
            raise RuntimeError("the head was written twice: this release of aiohttp sends it in pieces")
        self._transport.write(head + body)


class PromptRequest(aiohttp.ClientRequest):
    """Head and body together, at once.

    Before Python 3.12 the library starts a task for every body, which begins in the loop's next turn; from 3.12 on that task begins at
    once, and this class is worth nothing any more. Seen by ``benchmarks/overhead.py``'s load at one connection: 24 of 690 us. In one
    write, because uvloop sends at each: one for each would be two system calls, two packets, and for the server two reads; seen at 64
    connections: 20 of 584 us.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        body, protocol = self._body, conn.protocol
        if (
            not isinstance(body, BytesPayload)
            or (body.size or 0) > MAX_BYTES
            or self._continue is not None
            or self.chunked
            or self.compress
            or protocol is None
            or protocol.writing_paused
            or protocol.transport is None
        ):
            return await super().send(conn)
        transport = protocol.transport
        joined = _WithBody(transport, body._value)  # noqa: SLF001 - its own way out is a coroutine
        self._body, protocol.transport = None, cast(asyncio.Transport, joined)
        try:
            return await super().send(conn)  # which writes the head, that tells the body's length, and waits for nothing
        finally:
            self._body, protocol.transport = body, transport
