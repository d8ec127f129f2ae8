"""The load generator: a fixed number of keep-alive connections, each of which sends its next request when it has its answer.

A process of its own (``run_load``), one protocol on uvloop: a request costs it some 30 microseconds, so that it is not what is
measured; the benchmarks tell the processor time it took.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import cast

import httptools
import uvloop

GRACE_S = 30.0
"""How long requests that run when the time is up may take to end. What has not ended then has failed."""
START_TIMEOUT_S = 30.0
_PIECE = re.compile(rb'"content":\s?"(\d+):(\d+) "')
WHOLE_ANSWER = "The council has met."
"""What ``mock_upstream`` says when it is not asked for a stream."""
_WHOLE = re.compile(rb'"content":\s?"%b"' % re.escape(WHOLE_ANSWER.encode()))
_LONGEST_PIECE = 64
"""Bytes of ``"content": "17:81736450021 "``, with room: what may be cut in two by the end of a packet."""
_MAX_CHUNK_TIMES = 20_000
"""Times of chunks that are kept, a random sample."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go."""

    port: int
    path: str = "/v1/chat/completions"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent."""

    target: Target
    bodies: str
    """File with one JSON body a line; they are sent in turn, from *skip* on."""
    connections: int
    seconds: float | None = None
    """No request begins after it; None: the number of requests decides."""
    max_requests: int | None = None
    num_chunks: int = 0
    """Of each answer, when they are streams; 0: they are not."""
    ramp_s: float = 0.0
    """Connections open evenly spread over it; what begins within it is not timed."""
    skip: int = 0


@dataclass(slots=True)
class Load:
    """What came of it. Times in milliseconds."""

    latencies: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    """From sending the request to the first piece of the answer."""
    chunks: list[float] = field(default_factory=list)
    """From the mock's sending a piece to its arrival, for a sample of all pieces."""
    num_done: int = 0
    num_chunks: int = 0
    num_failed: int = 0
    num_disordered: int = 0
    """Streams with a piece that was out of order, missing or twice."""
    max_open: int = 0
    """Most requests that were under way at once."""
    seconds: float = 0.0
    processor_s: float = 0.0
    """Of the load generator itself."""
    failure: str = ""
    """The first one."""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.num_done / self.seconds if self.seconds else 0.0


async def run_load(plan: Plan, *, cpus: Sequence[int] = ()) -> Load:
    """*plan*, carried out by a process of its own; on *cpus* only, when there are any."""
    process = await asyncio.create_subprocess_exec(sys.executable, str(Path(__file__)), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if cpus:
            os.sched_setaffinity(process.pid, cpus)
        limit = None if plan.seconds is None else START_TIMEOUT_S + plan.seconds + plan.ramp_s + GRACE_S
        async with asyncio.timeout(limit or 600.0):
            out, _ = await process.communicate(json.dumps(asdict(plan)).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"the load generator ended with status {process.returncode}")
    return Load(**json.loads(out))


class Pieces:
    """The numbered pieces of one stream, read from its bytes however these are cut.

    Or the mock's whole answer in one: that of a panel whose candidates, who are not streamed, all said the same.
    """

    def __init__(self) -> None:
        self.num, self.in_order, self.is_whole = 0, True, False
        self._rest = b""

    def feed(self, data: bytes) -> list[int]:
        """The moments at which those pieces were sent that *data* completes."""
        data, end, sent = self._rest + data, 0, []
        self.is_whole = self.is_whole or (not self.num and _WHOLE.search(data) is not None)
        for found in _PIECE.finditer(data):
            self.in_order &= int(found[1]) == self.num
            self.num += 1
            sent.append(int(found[2]))
            end = found.end()
        self._rest = data[max(end, len(data) - _LONGEST_PIECE) :]
        return sent

    def are_complete(self, num_chunks: int) -> bool:
        return self.in_order and self.num == (0 if self.is_whole else num_chunks)


def request_bytes(target: Target, body: bytes) -> bytes:
    """One request, head and body."""
    headers = {"host": f"127.0.0.1:{target.port}", "content-type": "application/json", **target.headers, "content-length": str(len(body))}
    head = f"POST {target.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return head.encode() + b"\r\n" + body


def bodies_from(path: str, skip: int) -> Iterator[bytes]:
    """The bodies in turn, without end."""
    lines = Path(path).read_bytes().splitlines()
    while True:
        yield lines[skip % len(lines)]
        skip += 1


class Run:
    """One plan under way."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.load, self.num_open = plan, Load(), 0
        self.began = self.ended = time.perf_counter()
        self._bodies, self._rng = bodies_from(plan.bodies, plan.skip), Random(0)
        self._left = plan.max_requests

    def next_request(self) -> bytes | None:
        """The next one, None when there are no more."""
        if self.plan.seconds is not None and time.perf_counter() - self.began > self.plan.seconds + self.plan.ramp_s:
            return None
        if self._left is not None:
            if self._left == 0:
                return None
            self._left -= 1
        self.num_open += 1
        self.load.max_open = max(self.load.max_open, self.num_open)
        return request_bytes(self.plan.target, next(self._bodies))

    def is_timed(self, sent_ns: int) -> bool:
        return sent_ns / 1e9 - self.began >= self.plan.ramp_s

    def answered(self, sent_ns: int, first_ns: int) -> None:
        now = time.perf_counter_ns()
        self.num_open -= 1
        self.load.num_done += 1
        self.ended = now / 1e9
        if self.is_timed(sent_ns):
            self.load.latencies.append((now - sent_ns) / 1e6)
            if first_ns:
                self.load.first.append((first_ns - sent_ns) / 1e6)

    def failed(self, why: str) -> None:
        self.num_open -= 1
        self.load.num_failed += 1
        self.load.failure = self.load.failure or why

    def saw_chunk(self, delay_ms: float) -> None:
        # Reservoir sampling: every chunk is as likely to be among those kept.
        self.load.num_chunks += 1
        if len(self.load.chunks) < _MAX_CHUNK_TIMES:
            self.load.chunks.append(delay_ms)
        elif (place := self._rng.randrange(self.load.num_chunks)) < _MAX_CHUNK_TIMES:
            self.load.chunks[place] = delay_ms


class Connection(asyncio.Protocol):
    """One connection. *done* is set when it has no more to send, or is lost."""

    def __init__(self, run: Run) -> None:
        self._run, self.done = run, asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._is_waiting = False
        self._start()

    def _start(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._pieces, self._first_ns, self._opening = Pieces(), 0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not declared as such
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        request = self._run.next_request()
        if request is None:
            self._transport.close()
            self._end()
            return
        self._is_waiting, self._sent_ns = True, time.perf_counter_ns()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._give_up(f"no HTTP: {error}")

    def on_body(self, body: bytes) -> None:
        self._opening += body[: 200 - len(self._opening)]
        if not self._run.plan.num_chunks:
            return
        sent = self._pieces.feed(body)
        if sent or self._pieces.is_whole:
            now = time.perf_counter_ns()
            self._first_ns = self._first_ns or now
            if self._run.is_timed(self._sent_ns):
                for moment in sent:
                    self._run.saw_chunk((now - moment) / 1e6)

    def on_message_complete(self) -> None:
        self._is_waiting = False
        expected = self._run.plan.num_chunks
        if self._parser.get_status_code() != 200:
            self._run.failed(f"{self._parser.get_status_code()}: {self._opening.decode(errors='replace')}")
        elif expected and not self._pieces.are_complete(expected):
            self._run.load.num_disordered += not self._pieces.in_order
            self._run.failed(f"{self._pieces.num} of {expected} pieces, {'in order' if self._pieces.in_order else 'out of order'}")
        else:
            self._run.answered(self._sent_ns, self._first_ns)
        if not self._parser.should_keep_alive():
            self._give_up("the server closes connections")  # and so could not be compared with others
            return
        self._start()
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._give_up(f"the connection was lost ({exc})" if self._is_waiting else "")

    def _give_up(self, why: str) -> None:
        if self.done.done():
            return
        if self._is_waiting:
            self._is_waiting = False
            self._run.failed(why)
        elif why:
            self._run.load.failure = self._run.load.failure or why
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def carry_out(plan: Plan) -> Load:
    """Raises ``OSError`` when nobody listens."""
    loop, run, before = asyncio.get_running_loop(), Run(plan), time.process_time()

    async def lane(number: int) -> None:
        await asyncio.sleep(number / plan.connections * plan.ramp_s)
        _, connection = await loop.create_connection(lambda: Connection(run), "127.0.0.1", plan.target.port)
        await connection.done

    lanes = [asyncio.create_task(lane(number)) for number in range(plan.connections)]
    limit = None if plan.seconds is None else plan.seconds + plan.ramp_s + GRACE_S
    _, late = await asyncio.wait(lanes, timeout=limit)
    if late:
        run.load.num_failed += len(late)
        run.load.failure = run.load.failure or f"no answer {GRACE_S:g} s after the end"
    for task in lanes:
        if task.done():
            task.result()
    run.load.seconds, run.load.processor_s = run.ended - run.began, time.process_time() - before
    return run.load


def plan_of(told: Mapping[str, object]) -> Plan:
    """The plan that ``run_load`` has sent."""
    given = dict(told)
    target = given.pop("target")
    assert isinstance(target, dict)
    return Plan(target=Target(**target), **given)  # type: ignore[arg-type]  # its own asdict


def write_bodies(path: Path, model: str, texts: Sequence[str], *, stream: bool) -> Path:
    """One chat request for each text."""
    with path.open("w", encoding="utf-8") as file:
        for text in texts:
            body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": text}]}
            file.write(json.dumps({**body, "stream": True} if stream else body) + "\n")
    return path


def main() -> None:
    load = uvloop.run(carry_out(plan_of(json.load(sys.stdin))))
    json.dump(asdict(load), sys.stdout)


if __name__ == "__main__":
    main()
