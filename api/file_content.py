"""A file as a response: read in a thread, a piece at a time, as fast as the reader takes it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import BinaryIO
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.disconnect import ClientGone, while_connected
from domain.batch import StoredFile

log = logging.getLogger(__name__)

PIECE_BYTES = 256 * 1024
"""Read at once: what one slow reader holds in memory."""


class FileContent(Response):
    """Sends *file*, open as *content*, which is closed in every case. A reader that takes nothing for *send_timeout_s* is gone."""

    def __init__(self, file: StoredFile, content: BinaryIO, *, send_timeout_s: float) -> None:
        headers = {
            "content-length": str(file.num_bytes),
            # Nobody's browser should take what was uploaded for a page of this service.
            "content-disposition": f"attachment; filename*=utf-8''{quote(file.filename)}",
            "x-content-type-options": "nosniff",
        }
        super().__init__(media_type="application/octet-stream", headers=headers)
        self._content, self._send_timeout_s = content, send_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(ClientGone):
                await while_connected(scope, receive, self._write(send))
        finally:
            await asyncio.to_thread(self._content.close)

    async def _write(self, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while piece := await asyncio.to_thread(self._content.read, PIECE_BYTES):
                async with asyncio.timeout(self._send_timeout_s):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            log.debug("a reader of a file stopped reading")
