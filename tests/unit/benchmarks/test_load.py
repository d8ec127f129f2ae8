"""The load generator against the mock upstream, and what it makes of bad answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from benchmarks.load import Pieces, Plan, Target, carry_out, request_bytes, write_bodies
from benchmarks.mock_upstream import MockProtocol, Pace, chunk, ending, is_streamed, whole_answer
from workers.sse import SseParser

PACE = Pace(num_chunks=5, interval_s=0.001)


@pytest.fixture
def bodies(tmp_path: Path) -> dict[bool, str]:
    """Files of what is asked, by whether it is streamed."""
    return {stream: str(write_bodies(tmp_path / f"{stream}.jsonl", "mock", ["one", "two"], stream=stream)) for stream in (False, True)}


async def served(pace: Pace) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(lambda: MockProtocol(pace), "127.0.0.1", 0)


def port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


async def test_the_mock_speaks_openai() -> None:
    async with await served(PACE) as server, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port_of(server)}/v1") as http:
        whole = await http.post("/chat/completions", json={"model": "mock", "messages": []})
        streamed = await http.post("/chat/completions", json={"model": "mock", "messages": [], "stream": True})

    assert whole.json()["choices"][0]["message"]["role"] == "assistant"
    events = [event.data for event in SseParser(10_000).feed(streamed.content)]
    assert events[-1] == "[DONE]"
    said = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert [text.split(":")[0] for text in said[:-1]] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_every_request_is_counted_and_timed(bodies: dict[bool, str], streamed: bool) -> None:
    async with await served(PACE) as server:
        plan = Plan(Target(port_of(server)), bodies[streamed], 3, max_requests=20, num_chunks=PACE.num_chunks * streamed)
        load = await carry_out(plan)

    assert (load.num_done, load.num_failed, load.max_open) == (20, 0, 3)
    assert len(load.latencies) == 20
    assert len(load.first) == 20 * streamed
    assert load.num_chunks == len(load.chunks) == 100 * streamed
    assert all(0 <= first <= whole for first, whole in zip(load.first, load.latencies, strict=False))


async def test_what_begins_while_connections_open_is_not_timed(bodies: dict[bool, str]) -> None:
    async with await served(PACE) as server:
        load = await carry_out(Plan(Target(port_of(server)), bodies[False], 2, seconds=0.05, ramp_s=0.05))

    assert 0 < len(load.latencies) < load.num_done


async def test_an_error_is_a_failure_that_is_told(bodies: dict[bool, str]) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 5\r\n\r\nbusy!")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        load = await carry_out(Plan(Target(port_of(server)), bodies[False], 1, max_requests=1))

    assert (load.num_done, load.num_failed) == (0, 1)
    assert load.failure == "503: busy!"


async def test_a_connection_that_breaks_is_a_failure(bodies: dict[bool, str]) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        load = await carry_out(Plan(Target(port_of(server)), bodies[False], 1, max_requests=1))

    assert (load.num_done, load.num_failed) == (0, 1)
    assert "lost" in load.failure


@pytest.mark.parametrize(
    ("numbers", "complete"), [([0, 1, 2], True), ([0, 2, 1], False), ([0, 1], False), ([0, 1, 1, 2], False), ([1, 2, 3], False)]
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_pieces_are_checked_however_the_bytes_are_cut(numbers: Sequence[int], complete: bool, size: int) -> None:
    data = b"".join(chunk(number, 10_000 + number) for number in numbers) + ending()
    pieces = Pieces()
    sent = [moment for start in range(0, len(data), size) for moment in pieces.feed(data[start : start + size])]

    assert pieces.are_complete(3) is complete
    assert sent == [10_000 + number for number in numbers]


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_the_whole_answer_in_one_piece_is_a_stream_too_and_half_of_it_is_none(size: int) -> None:
    """A panel that agrees tells the answer of a candidate, none of which was streamed."""
    said = whole_answer()

    whole, half = Pieces(), Pieces()
    for start in range(0, len(said), size):
        whole.feed(said[start : start + size])
    half.feed(said[: said.index(b"has met")])

    assert whole.are_complete(3)
    assert not half.are_complete(3)


def test_a_request_says_how_long_it_is() -> None:
    head, body = request_bytes(Target(80, headers={"x-one": "1"}), b'{"a": 1}').split(b"\r\n\r\n")

    assert body == b'{"a": 1}'
    assert b"content-length: 8" in head
    assert b"x-one: 1" in head


def test_a_stream_is_asked_for_in_any_spelling() -> None:
    assert is_streamed(b'{"stream":true}')
    assert is_streamed(b'{"stream": true}')
    assert not is_streamed(b'{"stream": false, "model": "stream"}')
