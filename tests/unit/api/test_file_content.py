"""A file that is sent: in pieces, and closed whatever the reader does."""

from __future__ import annotations

import asyncio
import io
from collections.abc import MutableMapping
from typing import Any

from api.file_content import PIECE_BYTES, FileContent
from domain.batch import FilePurpose, StoredFile

WAIT_S = 30.0


class Reader:
    """Takes *num_pieces* of the body, then no more, and goes away when it is told to."""

    def __init__(self, num_pieces: int) -> None:
        self.pieces: list[bytes] = []
        self.stalled, self.gone = asyncio.Event(), asyncio.Event()
        self._left = num_pieces

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            return
        if not self._left:
            self.stalled.set()
            await asyncio.Event().wait()
        self._left -= 1
        self.pieces.append(message["body"])

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}


def response(content: io.BytesIO, *, send_timeout_s: float = WAIT_S) -> FileContent:
    file = StoredFile("file-1", FilePurpose.BATCH, 'a "b"\n.jsonl', len(content.getvalue()), 0.0)
    return FileContent(file, content, send_timeout_s=send_timeout_s)


async def test_a_file_goes_out_in_pieces() -> None:
    content, reader = io.BytesIO(b"x" * (PIECE_BYTES + 1)), Reader(10)
    answer = response(content)
    await asyncio.wait_for(answer({}, reader.receive, reader.send), WAIT_S)

    assert [len(piece) for piece in reader.pieces] == [PIECE_BYTES, 1, 0]
    assert content.closed
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''a%20%22b%22%0A.jsonl"


async def test_a_reader_that_takes_no_more_is_given_up() -> None:
    content, reader = io.BytesIO(b"x" * 3 * PIECE_BYTES), Reader(1)
    await asyncio.wait_for(response(content, send_timeout_s=0.01)({}, reader.receive, reader.send), WAIT_S)

    assert len(reader.pieces) == 1
    assert content.closed


async def test_a_reader_that_goes_away_ends_the_reading() -> None:
    content, reader = io.BytesIO(b"x" * 3 * PIECE_BYTES), Reader(1)
    sending = asyncio.create_task(response(content)({}, reader.receive, reader.send))
    await asyncio.wait_for(reader.stalled.wait(), WAIT_S)
    reader.gone.set()
    await asyncio.wait_for(sending, WAIT_S)

    assert content.closed
