"""The log of a served request, as a program that collects logs reads it."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.logs import JsonFormatter
from tests.e2e.processes import ROOT, free_port, until
from tests.fakes.upstream import ErrorEvent, NotAStream, Status, running_upstream
from tests.integration.api.test_bootstrap import LocalEncoder, running, settings_in, until_ready

PROMPT = "canary-prompt-5e07"
ASK: dict[str, Any] = {"model": "speaker", "messages": [{"role": "user", "content": PROMPT}]}
START_WITHIN_S = 60.0


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What ``CONSILIUM_LOG_FORMAT=json`` writes, at the level that is set by default."""
    text, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(text)
    handler.setFormatter(JsonFormatter())
    handler.setLevel(logging.INFO)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


async def test_lines_bear_their_requests_id_and_nothing_that_was_said(
    log: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the worst of servers: it puts the prompt into every error."""
    monkeypatch.setattr("api.bootstrap.Encoder", LocalEncoder)
    said = f"cannot answer {PROMPT!r}"
    async with running_upstream() as upstream, running(settings_in(tmp_path)) as http:
        await until_ready(http)
        card = {"id": "speaker", "backend": "openai", "model": "speaker", "base_url": upstream.base_url}
        assert (await http.post("/admin/api/experts", json=card)).status_code == 201

        async def told(number: int, *faults: Any, stream: bool = False) -> str:
            upstream.faults.extend(faults)
            response = await http.post("/v1/chat/completions", json={**ASK, "stream": stream}, headers={"x-request-id": f"req-{number}"})
            return response.text

        answers = [
            await told(1),
            await told(2, *[Status(500, message=said)] * 3),
            await told(3, Status(400, message=said)),
            await told(4, *[NotAStream(said)] * 3, stream=True),
        ]
        await http.patch("/admin/api/experts/speaker", json={"description": "its circuit is closed again"})
        answers.append(await told(5, ErrorEvent(), stream=True))
        answers.append(await told(6, stream=True))

    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert PROMPT in answers[1] + answers[2], "the caller hears the server's words"
    assert PROMPT not in log.getvalue()
    assert "abcdefghij" not in log.getvalue(), "nor is an answer there"
    failed = [line for line in lines if line["level"] == "warning" and "request_id" in line]
    assert {line["request_id"] for line in failed} == {"req-2", "req-4", "req-5"}
    assert [
        line["message"].partition(";")[0] for line in failed if line["logger"] == "workers.retry" and line["request_id"] == "req-2"
    ] == [f"expert speaker, attempt {attempt} of 3: expert_protocol_error (HTTP 500)" for attempt in (1, 2)]


def test_a_service_that_is_told_to_writes_nothing_but_json(tmp_path: Path) -> None:
    """From its first line to its last, what it says of itself included."""
    port, path = free_port(), tmp_path / "log"
    environment = {
        **os.environ,
        "CONSILIUM_LOG_FORMAT": "json",
        "CONSILIUM_ADMIN_KEY": "admin-key-0123456789",
        "CONSILIUM_SEED_ZOO": "false",
        "CONSILIUM_NO_SUCH_SETTING": "1",
        "CONSILIUM_DATA_DIR": str(tmp_path / "data"),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "api.cli.main", "serve", "--port", str(port)]
    with path.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path)
    try:

        def serves() -> bool:
            assert process.poll() is None, path.read_text()
            try:
                return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        until(serves, within_s=START_WITHIN_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_WITHIN_S) == 0
    finally:
        process.kill()
        process.wait()

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    messages = [line["message"] for line in lines]
    assert any("CONSILIUM_NO_SUCH_SETTING is no setting" in message for message in messages)
    assert f"starting on http://127.0.0.1:{port}" in messages
    assert messages[-1] == "stopped"
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
