"""A service with the real parts that starts servers itself; their program is a stand-in, called as the processors' vLLM is."""

from __future__ import annotations

import asyncio
import json
import shlex
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.fakes.vllm import PROGRAM, processes
from tests.integration.api.test_bootstrap import LocalEncoder, running, settings_in, until_ready

USER = [{"role": "user", "content": "hello"}]


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.bootstrap.Encoder", LocalEncoder)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Stands for the Python of vLLM's environment: drops ``-m vllm.entrypoints…`` and runs the stand-in."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nshift 2\nexec {shlex.join(PROGRAM.argv)} "$@"\n')
    script.chmod(0o755)
    return script


async def declare(http: httpx.AsyncClient, expert_id: str, **more: object) -> None:
    card = {"id": expert_id, "backend": "vllm", "model": f"/models/{expert_id}", **more}
    answer = await http.post("/admin/api/experts", json=card)
    assert answer.status_code == 201, answer.text


async def test_an_expert_that_is_declared_is_served_at_once_and_its_server_ends_with_the_service(
    no_models: None, python: Path, tmp_path: Path
) -> None:
    async with running(settings_in(tmp_path / "data", vllm_python=python, worker_memory_mb=5000)) as http:
        await until_ready(http)
        await declare(http, "a")
        await declare(http, "b", serving={"load_s": 1.0})
        plain = await http.post("/v1/chat/completions", json={"model": "a", "messages": USER})
        streamed = await http.post("/v1/chat/completions", json={"model": "b", "messages": USER, "stream": True})
        listed = (await http.get("/admin/api/workers")).json()
        metrics = (await http.get("/metrics")).text

    assert plain.status_code == 200, plain.text
    assert plain.json()["choices"][0]["message"]["content"].startswith("a on ")
    assert ": b: making room" in streamed.text or ": b: loading, takes about 1 s" in streamed.text
    assert [(row["id"], row["state"]) for row in listed["data"]] == [("a", "stopped"), ("b", "ready")]
    assert "consilium_servers_resident 1.0" in metrics
    assert "consilium_server_loads_total 2.0" in metrics
    assert not processes(tmp_path / "data" / "vllm")


async def test_a_managed_expert_can_be_checked(no_models: None, python: Path, tmp_path: Path) -> None:
    async with running(settings_in(tmp_path / "data", vllm_python=python)) as http:
        await until_ready(http)
        await declare(http, "a", timeout_s=5)
        checked = (await http.post("/admin/api/experts/a/check")).json()

    assert checked["ok"], checked
    assert checked["answer"].startswith("a on ")


async def test_without_vllm_the_expert_says_how_to_get_it(no_models: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("api.bootstrap.release.FOLDER", tmp_path / "project" / "zoo")
    monkeypatch.setattr("api.bootstrap.shutil.which", lambda _: None)
    async with running(settings_in(tmp_path / "data")) as http:
        await until_ready(http)
        await declare(http, "a")
        await declare(http, "on-gpu", serving={"gpus": ["0"]}, model="Org/Model")
        asked = [await http.post("/v1/chat/completions", json={"model": name, "messages": USER}) for name in ("a", "on-gpu")]

    assert [answer.status_code for answer in asked] == [502, 503]
    assert "run `make vllm`" in asked[0].text
    assert "CONSILIUM_GPU_MEMORY_MB" in asked[1].text


async def test_a_batch_is_left_to_the_service_that_manages_the_servers(
    no_models: None, python: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two on one data dir: the one that takes batches up is not the one that may start servers, until the other has gone."""
    settings = settings_in(tmp_path / "data", vllm_python=python)
    body = {"model": "a", "messages": USER}
    line = json.dumps({"custom_id": "x", "method": "POST", "url": "/v1/chat/completions", "body": body}).encode() + b"\n"
    async with AsyncExitStack() as others:
        first = await others.enter_async_context(running(settings.model_copy(update={"run_batches": False})))
        await until_ready(first)
        await declare(first, "a")
        async with running(settings) as http:
            await until_ready(http)
            file = (await http.post("/v1/files", files=[("purpose", (None, "batch")), ("file", ("in.jsonl", line))])).json()["id"]
            asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            batch = (await http.post("/v1/batches", json=asked)).json()["id"]
            async with asyncio.timeout(30):
                while "no batch is taken up: another process manages" not in caplog.text:
                    await asyncio.sleep(0.02)
            before = (await http.get(f"/v1/batches/{batch}")).json()
            await others.aclose()
            async with asyncio.timeout(60):
                while (after := (await http.get(f"/v1/batches/{batch}")).json())["status"] != "completed":
                    await asyncio.sleep(0.1)

    assert before["status"] == "validating", "nobody has touched it"
    assert after["request_counts"] == {"total": 1, "completed": 1, "failed": 0}


async def test_a_start_loads_nothing(no_models: None, python: Path, tmp_path: Path) -> None:
    for _ in range(2):
        async with running(settings_in(tmp_path / "data", vllm_python=python)) as http:
            await until_ready(http)
            if not (await http.get("/admin/api/workers")).json()["data"]:
                await declare(http, "a")
            assert not processes(tmp_path / "data" / "vllm")
