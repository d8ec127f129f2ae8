"""aiohttp's request, its small body sent in the turn of the event loop in which it is made."""

from __future__ import annotations

import aiohttp
from aiohttp.connector import Connection
from aiohttp.payload import BytesPayload

MAX_BYTES = 65_536
"""Of a body that is sent so; a larger one is left to the library, which waits while the server does not take it."""


class PromptRequest(aiohttp.ClientRequest):
    """Head and body together, at once.

    Before Python 3.12 the library starts a task for every body, which begins in the loop's next turn; from 3.12 on that task begins at
    once, and this class is worth nothing any more. Seen by ``benchmarks/overhead.py``'s load at one connection: 24 of 690 us.
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
        self._body = None
        try:
            response = await super().send(conn)  # the head, which tells the body's length already
        finally:
            self._body = body
        if not protocol.transport.is_closing():  # else whoever reads the answer is told
            protocol.transport.write(body._value)  # noqa: SLF001 - its own way out is a coroutine
        return response
