"""What a caller sees of each fault of an expert's server: asked by name, streamed, in a panel, with somebody to stand in, and in a batch.

The server is a real one behind a proxy that misbehaves, the service everything but the encoder. Each time there is a typed error or the
answer, in time, the connection to the expert is let go of, and the trace says what happened.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from tests.fakes.fault_proxy import (
    PATIENCE_S,
    Fault,
    FaultProxy,
    Garbage,
    Half,
    Refuse,
    Reset,
    StallBetween,
    StallFirst,
    Status,
    Trickle,
    fault_proxy,
)
from tests.fakes.upstream import running_upstream
from tests.integration.api.conftest import listening
from tests.integration.api.test_bootstrap import LocalEncoder, settings_in, until_ready

USER = [{"role": "user", "content": "Hello"}]
CHAT = "/v1/chat/completions"
CARD = {"backend": "openai", "model": "speaker", "timeout_s": 1.5, "first_token_timeout_s": 1.0, "idle_timeout_s": 1.0}
BY_THEN_S = 45.0
"""A hang lasts for ever, the limits above two seconds; between them is room for a machine that is busy."""
AFTER_A_WORD = 8
"""Events of ``speaker``'s stream after which a letter of its answer was said."""


@dataclass
class World:
    """``faulty`` is behind the proxy, ``healthy`` is not; both answer the same."""

    http: httpx.AsyncClient
    proxy: FaultProxy
    app: Any

    async def ask(self, model: str, **changes: Any) -> httpx.Response:
        body = {"model": model, "messages": USER, "consilium": {"explain": True}} | changes
        began = time.monotonic()
        answer = await self.http.post(CHAT, json=body, headers={"x-request-id": f"r-{model.rpartition('/')[2]}"})
        assert time.monotonic() - began < BY_THEN_S
        return answer

    async def trace(self, model: str) -> dict[str, Any]:
        """Of the request for *model*, as it is stored."""
        return await newest_trace(self.http, f"r-{model.rpartition('/')[2]}")

    async def must_be_idle(self) -> None:
        assert await asyncio.to_thread(self.proxy.until_idle), "a connection to the expert was not let go of"
        services = self.app.state.services
        async with asyncio.timeout(PATIENCE_S):
            while services.workers.in_flight("faulty") or services.workers.in_flight("healthy"):
                await asyncio.sleep(0.01)


async def newest_trace(http: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        while not (found := (await http.get("/admin/api/traces", params={"request_id": request_id})).json()["data"]):
            await asyncio.sleep(0.05)
    return dict((await http.get(f"/admin/api/traces/{found[0]['id']}")).json())


@pytest.fixture
async def world(tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    shutil.copy(sqlite_template, tmp_path / "consilium.db")
    monkeypatch.setattr("api.bootstrap.Encoder", LocalEncoder)
    app = create_app(settings_in(tmp_path))
    headers = {"authorization": "Bearer admin-key-0123456789"}
    async with running_upstream() as upstream:
        host, port = upstream.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        with fault_proxy(lambda: (host, int(port))) as proxy:
            async with listening(app) as url, httpx.AsyncClient(base_url=url, headers=headers, timeout=BY_THEN_S + 15) as http:
                await until_ready(http)
                for name, base_url in (("faulty", proxy.base_url), ("healthy", upstream.base_url)):
                    added = await http.post("/admin/api/experts", json={"id": name, "base_url": base_url, **CARD})
                    assert added.status_code == 201, added.text
                both = {"router": "fixed", "router_options": {"experts": ["faulty", "healthy"]}, "timeout_s": 30.0}
                for strategy in (
                    {"id": "panel", "pick": {"kind": "top_k", "k": 2}, "aggregator": "vote", **both},
                    {"id": "next", "pick": {"kind": "top_k", "k": 1}, **both},
                    {"id": "hedged", "pick": {"kind": "top_k", "k": 1}, "hedge_after_s": 0.2, **both},
                ):
                    made = await http.post("/admin/api/strategies", json=strategy)
                    assert made.status_code == 201, made.text
                yield World(http, proxy, app)


def said(answer: httpx.Response) -> str:
    if "event-stream" not in answer.headers["content-type"]:
        return str(answer.json()["choices"][0]["message"]["content"])
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event.get("choices", ()))


def explained(answer: httpx.Response) -> dict[str, Any]:
    if "event-stream" not in answer.headers["content-type"]:
        return dict(answer.json()["consilium"])
    lines = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    return dict(json.loads(lines[-1][6:])["consilium"])


UNREACHABLE, TIMEOUT, PROTOCOL = "expert_unreachable", "expert_timeout", "expert_protocol_error"
BEFORE: list[tuple[Fault, int, str]] = [
    (Refuse(), 502, UNREACHABLE),
    (StallFirst(), 502, TIMEOUT),
    (Garbage(), 502, PROTOCOL),
    (Status(500), 502, PROTOCOL),
    (Status(429, 60), 429, "expert_overloaded"),
    (Reset(), 502, UNREACHABLE),
]
"""Before the first byte of an answer: the fault, the status by name, and what the expert failed with."""
WITHIN: list[tuple[Fault, int, str]] = [(StallBetween(), 502, TIMEOUT), (Half(), 502, PROTOCOL), (Reset(3), 502, PROTOCOL)]
"""Within it. A plain answer breaks off half-way."""
LATER: list[tuple[Fault, str]] = [
    (StallBetween(AFTER_A_WORD), TIMEOUT),
    (Half(AFTER_A_WORD), PROTOCOL),
    (Reset(AFTER_A_WORD), PROTOCOL),
]
"""Within a stream of which something has gone out."""


def before_a_token(fault: Fault) -> Fault:
    """*fault* where it leaves nothing of a stream but the role."""
    return type(fault)(1) if isinstance(fault, StallBetween | Half) or (isinstance(fault, Reset) and fault.after) else fault


def name_of(value: object) -> str | None:
    return type(value).__name__ + str(getattr(value, "status", "")) if isinstance(value, Fault) else None


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("fault", "status", "code"), [*BEFORE, *WITHIN], ids=name_of)
async def test_by_name_it_is_a_typed_error(world: World, fault: Fault, status: int, code: str, stream: bool) -> None:
    """Until the first token has come, a stream fails as a plain answer does."""
    if stream:
        fault = before_a_token(fault)
    await asyncio.to_thread(world.proxy.behave, fault)
    answer = await world.ask("faulty", stream=stream)
    trace = await world.trace("faulty")

    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    if status == 502:
        assert error["code"] == "all_experts_failed"
        assert [(expert["expert"], expert["code"]) for expert in error["experts"]] == [("faulty", code)]
    else:
        assert error["code"] == "overloaded"
        assert answer.headers["retry-after"] == "60"
    assert (trace["status"], trace["error_code"]) == ("error", error["code"])
    assert [(call["expert"], call["status"], call["error"].partition(":")[0]) for call in trace["calls"]] == [("faulty", "error", code)]
    await world.must_be_idle()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_slow_trickle_is_an_answer(world: World, stream: bool) -> None:
    """Slow is not silent: as long as something comes, and the whole in time, nothing is wrong."""
    world.proxy.behave(Trickle(200, 0.01))
    answer = await world.ask("faulty", stream=stream)

    assert answer.status_code == 200, answer.text
    assert said(answer) == "abcdefghij"
    await world.must_be_idle()


@pytest.mark.parametrize(("fault", "code"), LATER, ids=name_of)
@pytest.mark.parametrize("model", ["faulty", "consilium/next"])
async def test_a_stream_that_breaks_says_so_and_nobody_goes_on_with_it(world: World, model: str, fault: Fault, code: str) -> None:
    """What went out was one expert's: another's words behind them would be nobody's answer."""
    world.proxy.behave(fault)
    answer = await world.ask(model, stream=True)
    trace = await world.trace(model)

    assert answer.status_code == 200
    events, _, ending = answer.text.partition("event: error\n")
    assert '"content":"a"' in events
    error = json.loads(ending.strip().removeprefix("data: "))["error"]
    assert error["code"] == "all_experts_failed"
    assert [(expert["expert"], expert["code"]) for expert in error["experts"]] == [("faulty", code)]
    assert "[DONE]" not in answer.text
    assert [(call["expert"], call["status"]) for call in trace["calls"]] == [("faulty", "error")]
    assert trace["status"] == "error"
    await world.must_be_idle()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("fault", "code"), [(fault, code) for fault, _, code in (*BEFORE, *WITHIN)], ids=name_of)
@pytest.mark.parametrize("model", ["consilium/panel", "consilium/next"])
async def test_somebody_else_answers(world: World, model: str, fault: Fault, code: str, stream: bool) -> None:
    """In a panel the others; where one was chosen, the next best in its place. The explanation says who failed, and how."""
    if stream and model == "consilium/next":
        fault = before_a_token(fault)
    await asyncio.to_thread(world.proxy.behave, fault)
    answer = await world.ask(model, stream=stream)
    trace = await world.trace(model)

    assert answer.status_code == 200, answer.text
    assert said(answer) == "abcdefghij"
    told = explained(answer)
    assert told["answered_by"] == "healthy"
    calls = {call["expert"]: call for call in told["calls"]}
    assert {name: call["status"] for name, call in calls.items()} == {"faulty": "error", "healthy": "ok"}
    assert calls["faulty"]["error"].startswith(f"{code}: ")
    assert (trace["status"], trace["answered_by"]) == ("ok", "healthy")
    if model == "consilium/next":
        assert told["selected"] == ["healthy"]
        assert told["reason"].endswith("Note: faulty failed, so the next best was asked, healthy.")
    await world.must_be_idle()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_silence_is_hedged(world: World, stream: bool) -> None:
    """The second answers, the silent call is ended and stands in the trace."""
    world.proxy.behave(StallFirst())
    answer = await world.ask("consilium/hedged", stream=stream)

    assert answer.status_code == 200, answer.text
    assert said(answer) == "abcdefghij"
    told = explained(answer)
    assert (told["answered_by"], told["selected"]) == ("healthy", ["healthy"])
    assert {call["expert"]: call["status"] for call in told["calls"]} == {"faulty": "cancelled", "healthy": "ok"}
    assert "faulty had said nothing for 0.2 s, so the next best was asked as well, healthy" in told["aggregator_reason"]
    if not stream:
        assert answer.headers["x-consilium-calls"] == "2"
    await world.must_be_idle()


@pytest.mark.parametrize("fault", [fault for fault, *_ in [*BEFORE, *WITHIN]], ids=name_of)
async def test_a_line_of_a_batch_is_answered_when_the_expert_is_back(world: World, fault: Fault) -> None:
    """A fault that passes costs a batch time, and nothing else: each line is there once."""
    if isinstance(fault, Refuse):
        await asyncio.to_thread(world.proxy.behave, fault)
    else:
        world.proxy.once(Status(429, 1) if isinstance(fault, Status) and fault.retry_after_s else fault)
    batch = await handed_in(world.http)
    async with asyncio.timeout(PATIENCE_S):
        while batch["status"] not in ("completed", "failed"):
            batch = (await world.http.get(f"/v1/batches/{batch['id']}")).json()
            if isinstance(fault, Refuse) and batch["request_counts"]["completed"]:  # the other one's is there
                await asyncio.to_thread(world.proxy.behave, None)
            await asyncio.sleep(0.05)

    assert batch["status"] == "completed"
    results = await results_of(world.http, batch["output_file_id"])
    assert {name: response["status_code"] for name, response in results.items()} == {"faulty": 200, "healthy": 200}
    assert {response["body"]["choices"][0]["message"]["content"] for response in results.values()} == {"abcdefghij"}
    await world.must_be_idle()


@pytest.mark.parametrize("fault", [Status(500), Half(), Garbage()], ids=name_of)
async def test_a_line_whose_expert_only_fails_fails_with_a_typed_error(world: World, fault: Fault) -> None:
    """While the expert is there and answers nonsense, a line is not tried for ever; the others are answered."""
    world.proxy.behave(fault)
    batch = await handed_in(world.http)
    async with asyncio.timeout(PATIENCE_S):
        while batch["status"] not in ("completed", "failed"):
            batch = (await world.http.get(f"/v1/batches/{batch['id']}")).json()
            await asyncio.sleep(0.05)
    answered, failed = [await results_of(world.http, batch[name]) for name in ("output_file_id", "error_file_id")]

    assert batch["status"] == "completed"
    assert {name: response["status_code"] for name, response in answered.items()} == {"healthy": 200}
    assert {name: response["status_code"] for name, response in failed.items()} == {"faulty": 502}
    assert failed["faulty"]["body"]["error"]["code"] == "all_experts_failed"
    await world.must_be_idle()


async def handed_in(http: httpx.AsyncClient) -> dict[str, Any]:
    """A batch with a line for each expert."""
    lines = [
        {"custom_id": name, "method": "POST", "url": CHAT, "body": {"model": name, "messages": USER}} for name in ("faulty", "healthy")
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = await http.post("/v1/files", files={"file": ("lines.jsonl", content)}, data={"purpose": "batch"})
    made = {"input_file_id": file.json()["id"], "endpoint": CHAT, "completion_window": "24h"}
    return dict((await http.post("/v1/batches", json=made)).json())


async def results_of(http: httpx.AsyncClient, file_id: str) -> dict[str, Any]:
    """The response of each line of an output; none stands twice."""
    rows = [json.loads(line) for line in (await http.get(f"/v1/files/{file_id}/content")).text.splitlines()]
    results = {row["custom_id"]: row["response"] for row in rows}
    assert len(results) == len(rows)
    return results


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_caller_who_leaves_a_silent_expert_frees_it(world: World, stream: bool) -> None:
    world.proxy.behave(StallFirst())
    asked = asyncio.create_task(world.ask("faulty", stream=stream))
    assert await asyncio.to_thread(world.proxy.until_requests, 1)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)

    await world.must_be_idle()
    assert (await world.trace("faulty"))["status"] == "cancelled"


async def test_a_request_that_may_not_be_made_twice_is_made_once(world: World) -> None:
    """An answer that the provider is to store: neither tried again nor asked of another."""
    world.proxy.behave(Half())
    answer = await world.ask("consilium/next", store=True)

    assert answer.status_code == 502
    assert world.proxy.num_requests == 1
    assert [expert["expert"] for expert in answer.json()["error"]["experts"]] == ["faulty"]


async def test_attempts_and_circuits_are_as_they_are_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One attempt, and one fault opens the circuit."""
    monkeypatch.setattr("api.bootstrap.Encoder", LocalEncoder)
    app = create_app(settings_in(tmp_path, expert_attempts=1, circuit_faults=1))
    with fault_proxy(lambda: ("127.0.0.1", 9)) as proxy:
        proxy.behave(Status(500))
        async with listening(app) as url, httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer admin-key-0123456789"}) as http:
            await until_ready(http)
            await http.post("/admin/api/experts", json={"id": "faulty", "base_url": proxy.base_url, **CARD})
            answers = [await http.post(CHAT, json={"model": "faulty", "messages": USER}, timeout=BY_THEN_S) for _ in range(2)]

    assert [answer.json()["error"]["code"] for answer in answers] == ["all_experts_failed", "no_eligible_expert"]
    assert proxy.num_requests == 1


async def test_a_fallback_whose_circuit_is_open_is_a_refusal_that_says_so_and_may_be_asked_again(world: World) -> None:
    fallen = {"id": "fallen", "router": "skills", "pick": {"kind": "top_k", "k": 1}, "fallback_expert": "faulty"}
    assert (await world.http.post("/admin/api/strategies", json=fallen)).status_code == 201
    world.proxy.behave(Status(500))
    failed = [await world.ask("consilium/fallen", messages=[{"role": "user", "content": f"Hello {i}"}]) for i in range(3)]
    refused = await world.ask("consilium/fallen")

    assert [answer.status_code for answer in failed] == [502] * 3, "nobody stands in for a fallback"
    assert all("x-consilium-fallback" not in answer.headers for answer in failed)
    assert refused.status_code == 503
    error = refused.json()["error"]
    assert "the fallback expert 'faulty' is not eligible now (unhealthy: its last calls failed" in error["message"]
    assert [expert["expert"] for expert in error["experts"]] == ["faulty"]
    assert "x-should-retry" not in refused.headers, "it is tried again after the cool-down"


async def test_a_caller_who_allows_one_call_gets_one(world: World) -> None:
    world.proxy.behave(Status(500))
    answer = await world.ask("consilium/next", consilium={"max_calls": 1})

    assert answer.status_code == 502
    assert [expert["expert"] for expert in answer.json()["error"]["experts"]] == ["faulty"]
