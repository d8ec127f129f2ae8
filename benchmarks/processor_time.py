"""What one request costs this process in processor time, beside an upstream that answers at once:

    python benchmarks/processor_time.py            # a plain answer, a streamed one, a batch's line

The application is called in process, without a socket in front, so that nothing is counted but the path of a request from its bytes to
the answer's; the upstream is another process, and experts are called over HTTP as always. Traces and metrics are on. The figure to
go by is the smallest of many rounds: others on the same machine make a round dearer, never cheaper.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import orjson
from pydantic import SecretStr

from api.cli.connection import until_ready

if TYPE_CHECKING:
    from api.services import Services

NUM_TOKENS = 100
LANES = 32
"""Requests at once."""
HOST = "127.0.0.1"
ENDPOINT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Write MCMXCIV in Arabic numerals."}]


# --- the upstream, in a process of its own -------------------------------------------------------------------------


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


def event(payload: Any) -> bytes:
    data = b"data: " + (payload if isinstance(payload, bytes) else orjson.dumps(payload)) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


USAGE = {"prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 16}
WHOLE = orjson.dumps(
    {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "1994"}, "logprobs": None, "finish_reason": "stop"}],
    }
)  # fmt: skip
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(WHOLE)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Upstream(asyncio.Protocol):
    """Answers every request, by its content type and body alone."""

    def __init__(self) -> None:
        self._buffer = b""
        self._streams: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
            if len(self._buffer) < end + 4 + size:
                return
            body, self._buffer = self._buffer[end + 4 : end + 4 + size], self._buffer[end + 4 + size :]
            if b'"stream":true' in body:
                task = asyncio.ensure_future(self._stream())
                self._streams.add(task)
                task.add_done_callback(self._streams.discard)
            else:
                self._transport.write(HEAD + WHOLE)

    async def _stream(self) -> None:
        self._transport.write(STREAM_HEAD + chunk({"role": "assistant", "content": ""}))
        for number in range(NUM_TOKENS):
            await asyncio.sleep(0)
            self._transport.write(chunk({"content": f"w{number} "}))
        self._transport.write(chunk({}, "stop") + event({"choices": [], "usage": USAGE}) + event(b"[DONE]") + b"0\r\n\r\n")


async def serve_upstream(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, HOST, port, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


# --- one request after the other through the application ----------------------------------------------------------------


async def one_request(app: Any, body: bytes) -> int:
    """How many messages came back."""
    is_sent, never, messages = False, asyncio.Event(), list[Any]()

    async def receive() -> dict[str, Any]:
        nonlocal is_sent
        if is_sent:
            await never.wait()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    headers = [(b"host", b"127.0.0.1:8080"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": ENDPOINT,
        "raw_path": ENDPOINT.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": (HOST, 1), "server": (HOST, 8080),
    }  # fmt: skip
    await app(scope, receive, send)
    if messages[0]["status"] != 200:
        raise SystemExit(f"the service answered {messages[0]['status']}: {messages[1]['body'].decode()}")
    return len(messages)


async def dearest_to_cheapest(num: int, rounds: int, one: Callable[[], Awaitable[Any]]) -> list[float]:
    """Microseconds of the process's time for each of *num* calls of *one*, round by round, sorted downwards."""

    async def lane() -> None:
        for _ in range(num // LANES):
            await one()

    spent = []
    for _ in range(rounds + 2):  # the first two warm up
        began = time.process_time()
        await asyncio.gather(*(lane() for _ in range(LANES)))
        spent.append((time.process_time() - began) / num * 1e6)
    return sorted(spent[2:], reverse=True)


async def batch_lines(services: Services, num: int, rounds: int) -> list[float]:
    """The same for each line of a batch, while its calls run: from the first call until everything is durable."""
    from domain.batch import Batch, BatchRunner, BatchState, FilePurpose
    from orchestrator.batch.news import BatchNews, Phase

    body = {"model": "mock", "messages": MESSAGES}
    lines = [json.dumps({"custom_id": str(number), "method": "POST", "url": ENDPOINT, "body": body}) + "\n" for number in range(num)]

    async def pieces() -> AsyncIterator[bytes]:
        yield "".join(lines).encode()

    spent = []
    for round_ in range(rounds + 1):
        moments: list[float] = []

        def note(news: BatchNews, moments: list[float] = moments) -> None:
            if news.phase in {Phase.RUNNING, Phase.WRITING}:
                moments.append(time.process_time())

        file, now, batch_id = await services.file_store.create("b.jsonl", FilePurpose.BATCH, pieces()), time.time(), f"batch_{round_}"
        batch = Batch(batch_id, ENDPOINT, file.id, BatchState.VALIDATING, now, now + 86_400, runner=BatchRunner.COMMAND)
        await services.batch_store.create(batch)
        claimed = await services.batch_store.claim("benchmark", lease_s=60, runner=BatchRunner.COMMAND, batch_id=batch_id)
        assert claimed is not None
        over = await services.batches.engine("benchmark", lease_s=60).run(claimed, note)
        assert over.counts.completed == num, over.counts
        spent.append((moments[-1] - moments[0]) / num * 1e6)
    return sorted(spent[1:], reverse=True)


async def main(port: int, rounds: int) -> None:
    from api.app import create_app
    from api.settings import Settings
    from domain.experts import Backend, ExpertCard

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), seed_zoo=False, run_batches=False, admin_key=SecretStr("k" * 32), _env_file=None)
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            services: Services = app.state.services
            await until_ready(services.readiness, ())
            card = ExpertCard("mock", Backend.OPENAI, "m", base_url=f"http://{HOST}:{port}/v1", max_in_flight=64, context_length=65_536)
            await services.expert_store.create(card)
            await services.directory.refresh()
            plain: dict[str, object] = {"model": "mock", "messages": MESSAGES}
            bodies = {"plain answer": plain, f"stream of {NUM_TOKENS} tokens": {**plain, "stream": True}}
            found: dict[str, list[float]] = {}
            for name, body in bodies.items():
                one = partial(one_request, app, orjson.dumps(body))
                found[name] = await dearest_to_cheapest(64 if "stream" in body else 256, rounds, one)
            found["line of a batch"] = await batch_lines(services, 500, max(1, rounds // 4))
    for name, spent in found.items():
        print(f"{name:24} {spent[-1]:7.0f} us at best, {spent[len(spent) // 2]:7.0f} us in the middle of {len(spent)} rounds")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Processor time of one request.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.upstream:
        asyncio.run(serve_upstream(arguments.upstream))
    with socket.create_server((HOST, 0)) as taken:
        free = taken.getsockname()[1]
    with subprocess.Popen([sys.executable, __file__, "--upstream", str(free)], stdout=subprocess.PIPE) as upstream:
        try:
            assert upstream.stdout is not None
            upstream.stdout.readline()
            from api.event_loop import run_async

            run_async(main(free, arguments.rounds))
        finally:
            upstream.terminate()
