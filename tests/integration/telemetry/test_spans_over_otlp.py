"""A served request as a real collector receives it, and its call as the expert's server does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.collector import WAIT_S, Collector, ReceivedSpan, running_collector
from tests.fakes.upstream import Status, Upstream, running_upstream
from tests.integration.api.test_bootstrap import LocalEncoder, running, settings_in, until_ready

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PROMPT = "canary-prompt-8d41"
ASK: dict[str, Any] = {"model": "speaker", "messages": [{"role": "user", "content": PROMPT}]}
CALLER = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "congo=t61rcWkgMzE", "x-request-id": "req-7"}


@pytest.fixture(autouse=True)
def _no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.bootstrap.Encoder", LocalEncoder)


@asynccontextmanager
async def served(folder: Path, upstream: Upstream, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The service with three experts on *upstream*, and the strategy ``council``: two of them say different things, the third makes one
    answer of that."""
    async with running(settings_in(folder, **changes)) as http:
        await until_ready(http)
        for name, model, role in (
            ("speaker", "speaker", "candidate"), ("other", "endless", "candidate"), ("reader", "speaker", "aggregator")
        ):  # fmt: skip
            card = {"id": name, "backend": "openai", "model": model, "base_url": upstream.base_url, "roles": [role]}
            assert (await http.post("/admin/api/experts", json=card)).status_code == 201
        strategy = {
            "id": "council", "router": "random", "pick": {"kind": "top_k", "k": 2}, "aggregator": "fuse", "aggregator_expert": "reader"
        }  # fmt: skip
        assert (await http.post("/admin/api/strategies", json=strategy)).status_code == 201
        yield http


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_upstream() as upstream:
        yield upstream


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with running_collector() as collector:
        yield collector


def by_name(spans: list[ReceivedSpan]) -> dict[str, ReceivedSpan]:
    return {span.name: span for span in spans}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_callers_trace_goes_on_through_the_service_to_the_experts_server(
    tmp_path: Path, upstream: Upstream, collector: Collector, stream: bool
) -> None:
    before = time.time_ns()
    async with served(tmp_path, upstream, otlp_endpoint=collector.url) as http:
        assert (await http.post("/v1/chat/completions", json={**ASK, "stream": stream}, headers=CALLER)).status_code == 200
        await collector.until(3)
    after = time.time_ns()

    request, routing, call = _three(collector.spans)
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert (request.kind, request.parent_id) == ("server", SPAN)
    assert (routing.kind, routing.parent_id) == ("internal", request.span_id)
    assert (call.kind, call.parent_id) == ("client", request.span_id)
    (received,) = upstream.requests
    assert received.headers["traceparent"] == f"00-{TRACE}-{call.span_id}-01", "its server's spans come below the call's"
    assert received.headers["tracestate"] == "congo=t61rcWkgMzE"
    assert before <= request.start_ns <= routing.start_ns <= routing.end_ns <= call.start_ns < call.end_ns <= request.end_ns <= after
    assert request.attributes["consilium.request_id"] == "req-7"
    assert call.attributes["gen_ai.request.model"] == "speaker"
    assert call.attributes["gen_ai.usage.input_tokens"] == len(PROMPT)
    assert call.attributes["server.address"] == "127.0.0.1"
    assert ("gen_ai.response.time_to_first_chunk" in call.attributes) is stream
    assert call.resource["service.name"] == "consilium"
    assert not any(span.is_error for span in collector.spans)


def _three(spans: list[ReceivedSpan]) -> tuple[ReceivedSpan, ReceivedSpan, ReceivedSpan]:
    """The request, its routing and its only call."""
    kinds = {span.kind: span for span in spans}
    assert len(spans) == len(kinds) == 3
    return kinds["server"], kinds["internal"], kinds["client"]


async def test_a_panel_is_a_tree(tmp_path: Path, upstream: Upstream, collector: Collector) -> None:
    async with served(tmp_path, upstream, otlp_endpoint=collector.url) as http:
        asked = {**ASK, "model": "consilium/council"}
        assert (await http.post("/v1/chat/completions", json=asked, headers=CALLER)).status_code == 200
        await collector.until(6)

    spans = by_name(collector.spans)
    assert sorted(spans) == ["aggregate fuse", "chat council", "chat other", "chat reader", "chat speaker", "route random"]
    request, aggregation, reader = spans["chat council"], spans["aggregate fuse"], spans["chat reader"]
    assert aggregation.parent_id == request.span_id
    assert reader.parent_id == aggregation.span_id
    candidates = [spans["chat speaker"], spans["chat other"]]
    assert {span.parent_id for span in candidates} == {request.span_id}
    assert max(span.end_ns for span in candidates) <= aggregation.start_ns <= reader.start_ns <= reader.end_ns <= aggregation.end_ns
    told = {received.headers["traceparent"].split("-")[2] for received in upstream.requests}
    assert told == {span.span_id for span in [*candidates, reader]}


async def test_without_a_callers_trace_each_request_begins_its_own(tmp_path: Path, upstream: Upstream, collector: Collector) -> None:
    async with served(tmp_path, upstream, otlp_endpoint=f"{collector.url}/v1/traces", otlp_headers="x-team=search") as http:
        for _ in range(2):
            await http.post("/v1/completions", json={"model": "speaker", "prompt": "x"})
        await collector.until(6)

    requests = [span for span in collector.spans if span.kind == "server"]
    assert {span.parent_id for span in requests} == {""}
    assert len({span.trace_id for span in requests}) == 2
    assert {headers["x-team"] for headers in collector.headers} == {"search"}


async def test_nothing_that_was_said_is_exported(tmp_path: Path, upstream: Upstream, collector: Collector) -> None:
    """Not by a server that puts the prompt into its errors either."""
    upstream.faults += [None, *[Status(500, message=f"cannot answer {PROMPT}")] * 3, Status(400, message=f"refused: {PROMPT}")]
    async with served(tmp_path, upstream, otlp_endpoint=collector.url, trace_content="full") as http:
        statuses = [(await http.post("/v1/chat/completions", json=ASK)).status_code for _ in range(3)]
        await collector.until(9)

    assert statuses == [200, 502, 400]
    assert {span.attributes.get("error.type") for span in collector.spans if span.kind == "client"} == {
        None, "expert_protocol_error", "expert_rejected"
    }  # fmt: skip
    assert [span.is_error for span in collector.spans if span.kind == "server"] == [False, True, True]
    exported = b"".join(collector.bodies)
    assert b"speaker" in exported
    assert PROMPT.encode() not in exported
    assert b"abcdefghij" not in exported, "nor the answer"


async def test_what_is_not_kept_is_still_passed_on(tmp_path: Path, upstream: Upstream, collector: Collector) -> None:
    """So that the expert's server does not begin a trace of its own."""
    async with served(tmp_path, upstream, otlp_endpoint=collector.url, otlp_sample_ratio=0.0) as http:
        await http.post("/v1/chat/completions", json=ASK)
        await http.post("/v1/chat/completions", json=ASK, headers=CALLER)
        await collector.until(3)

    first, second = (received.headers["traceparent"] for received in upstream.requests)
    assert first.endswith("-00")
    assert second.startswith(f"00-{TRACE}-")
    assert {span.trace_id for span in collector.spans} == {TRACE}


async def test_off_by_default(tmp_path: Path, upstream: Upstream) -> None:
    """Nobody is told a context, not even one that came with the request."""
    async with served(tmp_path, upstream) as http:
        assert (await http.post("/v1/chat/completions", json=ASK, headers=CALLER)).status_code == 200
        metrics = (await http.get("/metrics")).text

    assert "traceparent" not in upstream.requests[0].headers
    assert "consilium_otlp_traces_dropped_total 0.0" in metrics


async def test_a_decision_alone_is_a_request_with_its_routing(tmp_path: Path, upstream: Upstream, collector: Collector) -> None:
    async with served(tmp_path, upstream, otlp_endpoint=collector.url) as http:
        asked = {**ASK, "model": "consilium/council"}
        told = (await http.post("/v1/route", json=asked, headers=CALLER)).json()
        asked |= {"consilium": {"deny": ["speaker", "other", "reader"]}}
        assert (await http.post("/v1/route", json=asked)).status_code == 503
        await collector.until(3)

    refused = next(span for span in collector.spans if span.is_error)
    spans = by_name([span for span in collector.spans if span is not refused])
    assert sorted(spans) == ["route council", "route random"]
    request, routing = spans["route council"], spans["route random"]
    assert (request.kind, request.parent_id, routing.parent_id) == ("server", SPAN, request.span_id)
    assert request.attributes["gen_ai.operation.name"] == "route"
    assert routing.attributes["consilium.selected"] == told["selected"], "what was decided, though no expert was asked"
    assert refused.attributes["error.type"] == "no_eligible_expert"
    assert upstream.requests == []


async def test_embeddings_are_one_span(tmp_path: Path, upstream: Upstream, collector: Collector) -> None:
    async with served(tmp_path, upstream, otlp_endpoint=collector.url) as http:
        asked = {"model": "auto", "input": [PROMPT, "another"], "encoding_format": "float"}
        answer = (await http.post("/v1/embeddings", json=asked, headers=CALLER)).json()
        assert (await http.post("/v1/embeddings", json={**asked, "dimensions": 1}, headers=CALLER)).status_code == 400
        await collector.until(2)

    done, refused = sorted(collector.spans, key=lambda span: span.is_error)
    assert (done.name, done.kind, done.trace_id, done.parent_id) == ("embeddings auto", "server", TRACE, SPAN)
    assert done.attributes == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "consilium",
        "gen_ai.request.model": "auto",
        "gen_ai.request.encoding_formats": ["float"],
        "gen_ai.embeddings.dimension.count": len(answer["data"][0]["embedding"]),
        "gen_ai.usage.input_tokens": answer["usage"]["prompt_tokens"],
        "consilium.request_id": "req-7",
        "consilium.num_texts": 2,
        "consilium.status": "ok",
    }
    assert refused.attributes["error.type"] == "invalid_request"
    assert PROMPT.encode() not in b"".join(collector.bodies)


async def test_each_line_of_a_batch_is_a_trace_that_its_servers_continue(tmp_path: Path, upstream: Upstream, collector: Collector) -> None:
    """The calls are told to the servers turns before the line is over, and in one trace with it all the same."""
    async with served(tmp_path, upstream, otlp_endpoint=collector.url) as http:
        bodies = [{**ASK, "model": "consilium/council"}, {**ASK, "model": "speaker"}]
        batch = await run_batch(http, "/v1/chat/completions", bodies)
        await collector.until(9)

    requests = {span.attributes["consilium.request_id"]: span for span in collector.spans if span.kind == "server"}
    assert set(requests) == {f"{batch}-1", f"{batch}-2"}
    assert len({span.trace_id for span in requests.values()}) == 2
    panel = [span for span in collector.spans if span.trace_id == requests[f"{batch}-1"].trace_id]
    spans = by_name(panel)
    assert sorted(spans) == ["aggregate fuse", "chat council", "chat other", "chat reader", "chat speaker", "route random"]
    assert spans["chat reader"].parent_id == spans["aggregate fuse"].span_id
    assert spans["chat speaker"].parent_id == spans["chat council"].span_id
    told = {received.headers["traceparent"] for received in upstream.requests}
    assert told == {f"00-{span.trace_id}-{span.span_id}-01" for span in collector.spans if span.kind == "client"}


async def test_lines_that_embed_have_a_span_each(tmp_path: Path, upstream: Upstream, collector: Collector) -> None:
    async with served(tmp_path, upstream, otlp_endpoint=collector.url) as http:
        batch = await run_batch(http, "/v1/embeddings", [{"model": "auto", "input": text} for text in ("one", "two")])
        await collector.until(2)

    assert {span.name for span in collector.spans} == {"embeddings auto"}
    assert {span.attributes["consilium.request_id"] for span in collector.spans} == {f"{batch}-1", f"{batch}-2"}
    assert len({span.trace_id for span in collector.spans}) == 2


async def run_batch(http: httpx.AsyncClient, endpoint: str, bodies: list[dict[str, Any]]) -> str:
    """The id of a batch of these, when it is over."""
    lines = [{"custom_id": f"c-{n}", "method": "POST", "url": endpoint, "body": body} for n, body in enumerate(bodies)]
    content = "\n".join(json.dumps(line) for line in lines).encode()
    uploaded = await http.post("/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"})
    assert uploaded.status_code == 200, uploaded.text
    asked = {"input_file_id": uploaded.json()["id"], "endpoint": endpoint, "completion_window": "24h"}
    batch: dict[str, Any] = (await http.post("/v1/batches", json=asked)).json()
    async with asyncio.timeout(WAIT_S):
        while batch["status"] != "completed":
            await asyncio.sleep(0.02)
            batch = (await http.get(f"/v1/batches/{batch['id']}")).json()
            assert batch["status"] not in {"failed", "expired", "cancelled"}, batch
    assert batch["request_counts"]["failed"] == 0
    return str(batch["id"])


@pytest.mark.parametrize("status", [400, 503])
async def test_a_collector_that_takes_nothing_costs_no_request(
    tmp_path: Path, upstream: Upstream, collector: Collector, status: int
) -> None:
    collector.status = status
    async with served(tmp_path, upstream, otlp_endpoint=collector.url, otlp_timeout_s=0.5) as http:
        for _ in range(5):
            assert (await http.post("/v1/chat/completions", json=ASK)).status_code == 200
        await collector.until_asked(1)
        async with asyncio.timeout(WAIT_S):
            while "consilium_otlp_traces_dropped_total 0.0" in (await http.get("/metrics")).text:
                await asyncio.sleep(0)

    assert collector.spans == []


async def test_a_collector_that_is_not_there_costs_no_request_and_no_stop(tmp_path: Path, upstream: Upstream) -> None:
    async with served(tmp_path, upstream, otlp_endpoint="http://127.0.0.1:9", otlp_timeout_s=0.5) as http:
        for _ in range(5):
            assert (await http.post("/v1/chat/completions", json=ASK)).status_code == 200
