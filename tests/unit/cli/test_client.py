"""What the command line makes of the service's answers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api.cli.client import ApiClient
from api.cli.failures import CommandFailed


def client_of(answer: Any) -> ApiClient:
    """A client whose service answers with *answer*, a response or a function of the request."""
    transport = httpx.MockTransport(answer if callable(answer) else lambda request: answer)
    return ApiClient(httpx.AsyncClient(transport=transport, base_url="http://test"), where="test", is_local=False)


def error(status: int, message: str, param: str | None = None) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message, "type": "x", "param": param, "code": "y"}})


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 2), (404, 2), (413, 2), (401, 1), (403, 1), (409, 1), (412, 1), (429, 1), (500, 1), (502, 1), (503, 1), (504, 1)]
)  # fmt: skip
async def test_a_status_becomes_an_exit_code(status: int, code: int) -> None:
    with pytest.raises(CommandFailed, match="what is wrong") as failed:
        await client_of(error(status, "what is wrong")).get("/x")

    assert failed.value.exit_code == code


async def test_the_field_at_fault_is_named_once() -> None:
    with pytest.raises(CommandFailed) as first:
        await client_of(error(400, "must be a number", "consilium.k")).get("/x")
    with pytest.raises(CommandFailed) as second:
        await client_of(error(400, "consilium.k must be a number", "consilium.k")).get("/x")

    assert first.value.message == "consilium.k: must be a number"
    assert second.value.message == "consilium.k must be a number"


@pytest.mark.parametrize("answer", [httpx.Response(502, text="<html>Bad gateway"), httpx.Response(500, json=[1])])
async def test_an_answer_that_is_not_ours_is_told_by_its_status(answer: httpx.Response) -> None:
    with pytest.raises(CommandFailed, match=str(answer.status_code)):
        await client_of(answer).get("/x")


@pytest.mark.parametrize(
    ("raised", "told"), [(httpx.ConnectError("refused"), "cannot reach test: refused"), (httpx.ReadTimeout(""), "did not answer in time")]
)
async def test_a_service_that_goes_away_is_told(raised: httpx.HTTPError, told: str) -> None:
    def broken(_: httpx.Request) -> httpx.Response:
        raise raised

    with pytest.raises(CommandFailed, match=told):
        await client_of(broken).get("/x")


async def test_rows_follow_the_pages_up_to_a_limit() -> None:
    """Each page's cursor is sent back; no more rows are asked for than wanted."""
    asked: list[dict[str, str]] = []

    def pages(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        start = int(request.url.params.get("cursor", 0))
        return httpx.Response(200, json={"data": [{"n": start}, {"n": start + 1}], "next": str(start + 2) if start < 4 else None})

    everything = await client_of(pages).rows("/x", skill="a", none=None)
    some = await client_of(pages).rows("/x", max_rows=3)

    assert [row["n"] for row in everything] == [0, 1, 2, 3, 4, 5]
    assert asked[1] == {"limit": "500", "cursor": "2", "skill": "a"}
    assert [request["limit"] for request in asked[3:]] == ["3", "1"]
    assert len(some) == 4


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        ("data: {\"id\": 1}\n\n", "before it was complete"),
        ("data: {half\n\n", "no JSON"),
        ('event: error\ndata: {"error": {"message": "the expert died"}}\n\n', "the expert died"),
    ],
)  # fmt: skip
async def test_a_stream_that_breaks_is_a_failure(stream: str, told: str) -> None:
    """Half a stream, garbage, an error event: never taken for the whole answer."""
    with pytest.raises(CommandFailed, match=told):
        async with client_of(httpx.Response(200, text=stream)).events("/x", {}, {}) as events:
            _ = [event async for event in events]


async def test_a_stream_gives_its_events_and_skips_comments() -> None:
    text = ': working\n\ndata: {"n": 1}\n\ndata: {"n": 2}\n\ndata: [DONE]\n\n'

    async with client_of(httpx.Response(200, text=text)).events("/x", {}, {}) as events:
        found = [event["n"] async for event in events]

    assert found == [1, 2]


async def test_a_stream_that_is_refused_is_an_error_of_its_own() -> None:
    with pytest.raises(CommandFailed, match="no such model"):
        async with client_of(error(404, "no such model")).events("/x", {}, {}):
            pass
