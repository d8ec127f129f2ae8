"""An OpenAI-compatible server that answers at once: what a gateway adds is then all that is left of the time.

``python benchmarks/mock_upstream.py [--chunks N] [--pace SECONDS]`` prints its port and serves until it is killed. A plain request has
one fixed answer. A stream has ``--chunks`` pieces, *pace* apart, each with its number and the moment it was sent (nanoseconds of the
machine's monotonic clock, which other processes read too): ``17:81736450021 ``. One protocol on uvloop, no framework: an answer takes
some 30 microseconds of processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httptools
import uvloop

MODEL = "mock"
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
_STREAMED = re.compile(rb'"stream"\s*:\s*true')
_ENVELOPE = '{"id":"chatcmpl-mock","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":[%s]}'
_PIECE = _ENVELOPE % '{"index":0,"delta":{"content":"%d:%d "},"finish_reason":null}'
_LAST = _ENVELOPE % '{"index":0,"delta":{},"finish_reason":"stop"}'
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Pace:
    """How a stream is sent."""

    num_chunks: int = 32
    interval_s: float = 0.005
    """Between two chunks; 0 sends all of them at once."""


def is_streamed(body: bytes) -> bool:
    """Whether the request asks for a stream. Reads no JSON: that would be most of the answer's time."""
    return _STREAMED.search(body) is not None


def whole_answer() -> bytes:
    """The response to a plain request, head and body."""
    body = json.dumps(
        {
            "id": "chatcmpl-mock",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": MODEL,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "The council has met."}, "logprobs": None, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
        }
    ).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def chunk(number: int, sent_ns: int) -> bytes:
    """The event with piece *number*, as one chunk of the body."""
    return _framed(_PIECE % (number, sent_ns))


def ending() -> bytes:
    """What follows the last piece: why it stopped, ``[DONE]``, and the body's end."""
    return _framed(_LAST) + _framed("[DONE]") + b"0\r\n\r\n"


def _framed(data: str) -> bytes:
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


class MockProtocol(asyncio.Protocol):
    """One connection. A client that goes away ends its stream."""

    def __init__(self, pace: Pace) -> None:
        self._pace, self._whole, self._ending = pace, whole_answer(), ending()
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._next: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not declared as such

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        if self._next is not None:
            self._next.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.close()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        if self._transport is None:
            return
        if not is_streamed(body):
            self._transport.write(self._whole)
        elif self._pace.interval_s:
            self._transport.write(_HEAD + chunk(0, time.perf_counter_ns()))
            self._follow(1, self._loop.time() + self._pace.interval_s)
        else:
            pieces = (chunk(number, time.perf_counter_ns()) for number in range(self._pace.num_chunks))
            self._transport.write(b"".join((_HEAD, *pieces, self._ending)))

    def _follow(self, number: int, when: float) -> None:
        self._next = self._loop.call_at(when, self._send, number, when)

    def _send(self, number: int, when: float) -> None:
        if self._transport is None:
            return
        if number == self._pace.num_chunks:
            self._transport.write(self._ending)
            return
        self._transport.write(chunk(number, time.perf_counter_ns()))
        # From when it was due, not from when it went: a late one must not slow the stream down.
        self._follow(number + 1, when + self._pace.interval_s)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A mock that answers."""

    port: int
    pid: int

    @property
    def base_url(self) -> str:
        """With ``/v1``."""
        return f"http://127.0.0.1:{self.port}/v1"


@asynccontextmanager
async def mock_upstream(pace: Pace) -> AsyncIterator[Upstream]:
    """The mock in a process of its own, gone when the block ends."""
    command = [sys.executable, str(Path(__file__)), "--chunks", str(pace.num_chunks), "--pace", str(pace.interval_s)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await process.stdout.readline()
        if not line:
            raise RuntimeError("the mock upstream did not start")
        yield Upstream(int(line), process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()


async def serve(pace: Pace) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: MockProtocol(pace), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="An upstream that answers at once.")
    parser.add_argument("--chunks", type=int, default=Pace().num_chunks)
    parser.add_argument("--pace", type=float, default=Pace().interval_s, help="seconds between two chunks of a stream")
    arguments = parser.parse_args()
    uvloop.run(serve(Pace(arguments.chunks, arguments.pace)))


if __name__ == "__main__":
    main()
