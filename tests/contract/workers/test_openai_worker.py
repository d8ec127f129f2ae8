"""What is particular to OpenAI-compatible servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from domain.chat import Usage
from domain.errors import ExpertError, ExpertProtocolError, ExpertRejected, ExpertTimeout, ExpertUnreachable
from domain.experts import Backend, ExpertCard
from domain.trace_context import TraceContext
from tests.contract.workers.cases import ANSWER, Case, call_of, openai_case, streamed
from tests.fakes.upstream import Garbage, NotAStream, Stall, Status, running_upstream
from workers.discovery import DiscoveredModel
from workers.limits import HttpLimits, PoolLimits
from workers.pool import WorkerPool


@pytest.fixture(name="case")
async def _case(tmp_path: Path) -> AsyncIterator[Case]:
    async with openai_case(tmp_path) as case:
        yield case


async def test_a_stream_asks_for_usage(case: Case) -> None:
    await streamed(case, call_of(case.speaker, stream_options={"continuous": True}))

    assert case.upstream is not None
    assert case.upstream.requests[0].body["stream_options"] == {"continuous": True, "include_usage": True}


@pytest.mark.parametrize("value", [2**70, "\ud800"])
async def test_what_cannot_be_written_as_json_is_refused(case: Case, value: object) -> None:
    """And not tried again: it says nothing about the expert."""
    with pytest.raises(ExpertRejected, match="cannot be written as JSON for expert"):
        await case.pool.complete(call_of(case.speaker, metadata={"k": value}))
    with pytest.raises(ExpertRejected, match="cannot be written as JSON for expert"):
        await streamed(case, call_of(case.speaker, metadata={"k": value}))


async def test_the_request_id_travels_along(case: Case) -> None:
    await case.pool.complete(call_of(case.speaker))

    assert case.upstream is not None
    assert case.upstream.requests[0].headers["X-Request-Id"] == "req-1"


async def test_other_fields_of_the_response_are_kept(case: Case) -> None:
    candidate = await case.pool.complete(call_of(case.speaker))
    stream = await streamed(case, call_of(case.speaker))

    assert candidate.extra == {"system_fingerprint": "fp_stub"}
    assert stream.chunks[0].extra == {"system_fingerprint": "fp_stub"}


async def test_fields_that_nobody_knows_are_kept(case: Case) -> None:
    """Of the usage, of a choice, and of an event without choices."""
    assert case.upstream is not None
    counts = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": None, "prompt_tokens_details": {"cached_tokens": 1}}
    choice = {"index": 0, "finish_reason": "stop", "stop_reason": 7}
    whole = {"choices": [choice | {"message": {"role": "assistant", "content": "a"}}], "usage": counts}
    events = (
        {"choices": [], "prompt_filter_results": [1]},
        {"choices": [choice | {"delta": {"content": "a"}}]},
        {"choices": [], "usage": counts},
    )
    stream_body = "\n\ndata: ".join([*map(json.dumps, events), "[DONE]"])
    case.upstream.faults.extend([Garbage(json.dumps(whole)), Garbage(stream_body)])
    candidate = await case.pool.complete(call_of(case.speaker))
    stream = await streamed(case, call_of(case.speaker))

    assert candidate.usage == Usage(1, 2, {"prompt_tokens_details": {"cached_tokens": 1}})
    assert candidate.choices[0].extra == {"stop_reason": 7}
    assert [chunk.extra for chunk in stream.chunks] == [{"system_fingerprint": "fp_stub"}, {"prompt_filter_results": [1]}, {}, {}]
    assert [piece.extra for chunk in stream.chunks for piece in chunk.choices] == [{}, {"stop_reason": 7}]
    assert stream.chunks[-1].usage == candidate.usage


@pytest.mark.parametrize("levels", [129, 300, 1000])
@pytest.mark.parametrize("shape", ['{"choices":[{"message":{"content":%s}}]}', '{"error":%s}', '{"choices":[{"delta":{"x":%s}}]}'])
async def test_an_answer_nested_too_deep_is_no_answer(case: Case, levels: int, shape: str) -> None:
    """It could not be written again for the caller."""
    assert case.upstream is not None
    deep = Garbage(shape % ("[" * levels + "1" + "]" * levels))
    case.upstream.faults.extend([deep] * 6)
    for call in (case.pool.complete(call_of(case.speaker)), streamed(case, call_of(case.speaker))):
        with pytest.raises(ExpertProtocolError, match="nested more than 128 levels"):
            await call


@pytest.mark.parametrize("calls", [[None], ["x"], "x", {}, [[]]])
async def test_tool_calls_that_are_no_list_of_objects_are_no_answer(case: Case, calls: object) -> None:
    assert case.upstream is not None
    whole = json.dumps({"choices": [{"message": {"content": None, "tool_calls": calls}}]})
    event = json.dumps({"choices": [{"delta": {"tool_calls": calls}}]})
    case.upstream.faults.extend([Garbage(whole)] * 3 + [Garbage(event)] * 3)
    for call in (case.pool.complete(call_of(case.speaker)), streamed(case, call_of(case.speaker))):
        with pytest.raises(ExpertProtocolError, match="tool calls of choice 0 are no list of objects"):
            await call


async def test_connections_are_used_again(case: Case) -> None:
    for _ in range(5):
        await case.pool.complete(call_of(case.speaker))
        await streamed(case, call_of(case.speaker))

    assert case.upstream is not None
    assert case.upstream.num_connections == 1


async def test_there_is_no_ceiling_of_a_hundred_connections(case: Case) -> None:
    assert case.upstream is not None
    card = replace(case.endless, max_in_flight=150)
    case.upstream.faults.extend([Stall()] * 150)
    tasks = [asyncio.create_task(case.pool.complete(call_of(card))) for _ in range(150)]
    await asyncio.wait_for(case.upstream.until_open(150), 20)

    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait_for(case.upstream.until_idle(), 20)


async def test_silence_in_the_middle_of_a_stream_is_a_timeout(tmp_path: Path) -> None:
    async with running_upstream() as upstream:
        pool = WorkerPool(embedded_dir=tmp_path)
        card = ExpertCard("endless", Backend.OPENAI, "endless", base_url=upstream.base_url, idle_timeout_s=0.1)
        upstream.faults.append(Stall(after=3))
        with pytest.raises(ExpertTimeout, match="silent"):
            async for _ in pool.stream(call_of(card)):
                pass
        await asyncio.wait_for(upstream.until_idle(), 5)
        await pool.close()


async def test_an_answer_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    async with running_upstream() as upstream:
        limits = PoolLimits(max_attempts=1)
        pool = WorkerPool(embedded_dir=tmp_path, http=HttpLimits(max_response_bytes=100), limits=limits)
        card = ExpertCard("speaker", Backend.OPENAI, "speaker", base_url=upstream.base_url)
        with pytest.raises(ExpertProtocolError, match="100 bytes"):
            await pool.complete(call_of(card))
        with pytest.raises(ExpertProtocolError, match="100 bytes"):
            async for _ in pool.stream(call_of(card)):
                pass
        await pool.close()


@pytest.mark.parametrize("base_url", [None, "", "not a url", "ftp://127.0.0.1/v1"])
async def test_a_card_without_a_usable_address_says_so(case: Case, base_url: str | None) -> None:
    with pytest.raises(ExpertUnreachable, match="base_url") as caught:
        await case.pool.complete(call_of(replace(case.speaker, base_url=base_url)))

    assert not caught.value.retryable


async def test_discovery_lists_models_before_adapters(case: Case) -> None:
    """An adapter inherits its base model's context length."""
    assert case.upstream is not None
    models = await case.pool.discover(f"{case.upstream.base_url}/", None)

    assert models == [
        DiscoveredModel("speaker", 4096, None, "stub"),
        DiscoveredModel("speaker-lora", 4096, "speaker", "stub"),
    ]


async def test_discovery_names_the_server_and_no_expert(case: Case) -> None:
    for base_url in ("http://127.0.0.1:9/v1", f"{case.speaker.base_url}/v2"):
        with pytest.raises(ExpertUnreachable, match=f"^the server at {base_url} (cannot be reached|is not served)"):
            await case.pool.discover(base_url)


@pytest.mark.parametrize(
    ("body", "content_type", "came"),
    [
        ("<html>it works!</html>", "text/html", "text/html: '<html>it works!</html>'"),
        ("", "text/plain", "an empty body"),
        ('{"choices": []}', "application/json", "application/json: "),
    ],
)
async def test_something_else_than_a_stream_is_told_as_what_it_is(case: Case, body: str, content_type: str, came: str) -> None:
    assert case.upstream is not None
    case.upstream.faults.extend([NotAStream(body, content_type)] * 3)
    with pytest.raises(ExpertProtocolError) as caught:
        await streamed(case, call_of(case.speaker))

    assert caught.value.message.startswith(f"expert 'speaker' was asked for a stream and sent something else ({came}")
    assert "broke off" not in caught.value.message


@pytest.mark.parametrize("stream", [False, True])
async def test_the_server_is_told_the_calls_span(case: Case, stream: bool) -> None:
    """W3C Trace Context, so that the server's own spans come below it; at every attempt, and only where there is one."""
    assert case.upstream is not None
    case.upstream.faults.append(Status(500))
    context = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", state="congo=t61")
    for call in (replace(call_of(case.speaker), context=context), call_of(case.speaker)):
        await (streamed(case, call) if stream else case.pool.complete(call))

    first, second, untold = (received.headers for received in case.upstream.requests)
    assert first["traceparent"] == second["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert first["tracestate"] == "congo=t61"
    assert not {"traceparent", "tracestate"} & {name.lower() for name in untold}


async def test_each_retry_is_logged_with_the_expert_and_its_error(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    """The server's own words come at debug only: they may hold what it was asked."""
    assert case.upstream is not None
    case.upstream.faults.extend([Status(500, message="engine died")] * 3)
    with caplog.at_level("DEBUG", logger="workers.retry"), pytest.raises(ExpertProtocolError):
        await case.pool.complete(call_of(case.speaker))

    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "workers.retry"]
    assert [level for level, _ in told] == ["WARNING", "DEBUG"] * 2
    first, words, second, _ = (message for _, message in told)
    assert first.startswith("expert speaker, attempt 1 of 3: expert_protocol_error (HTTP 500); again in")
    assert words == "expert speaker, attempt 1 of 3: expert 'speaker' failed (HTTP 500: engine died)"
    assert second.startswith("expert speaker, attempt 2 of 3")


async def test_discovery_without_the_version_says_to_append_it(case: Case) -> None:
    """Whatever a server answers at the wrong path; one that is not there at all is another matter."""
    assert case.upstream is not None
    root = case.upstream.base_url.removesuffix("/v1")
    for base_url in (root, f"{root}/", f"{root}/page", f"{root}/moved"):
        with pytest.raises(ExpertError, match=f"append /v1 to the address .{base_url.rstrip('/')}/v1.") as caught:
            await case.pool.discover(base_url)
        assert not caught.value.retryable
    with pytest.raises(ExpertUnreachable, match="404") as caught:
        await case.pool.discover(f"{root}/v2")
    assert "append" not in caught.value.message
    with pytest.raises(ExpertUnreachable) as caught:
        await case.pool.discover("http://127.0.0.1:9")
    assert "append" not in caught.value.message


async def test_cancelling_one_call_leaves_the_others_alone(case: Case) -> None:
    stream = case.pool.stream(call_of(case.endless, max_tokens=2000))
    await anext(stream)
    others = [asyncio.create_task(case.pool.complete(call_of(case.speaker))) for _ in range(5)]
    await stream.aclose()

    assert [candidate.text for candidate in await asyncio.gather(*others)] == [ANSWER] * 5
