"""What users say of answers reaches the router that chose, whether they came alone or in a batch."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.api.test_bootstrap import WAIT_S, WordEncoder, running, settings_in, until_ready

ROMAN = ("XIV", "MCMXCIV", "CDXLIV", "XII", "LXX", "DCC")
DAYS = ("Monday", "Tuesday", "Friday", "Sunday", "Thursday", "Saturday")


async def measured(http: httpx.AsyncClient) -> None:
    """Two experts that were measured, and a strategy whose router learns."""
    asked = [(f"Write {roman} in Arabic numerals.", "roman numerals") for roman in ROMAN]
    asked += [(f"Which day follows {day}?", "weekdays") for day in DAYS]
    for name in ("numerals", "calendar"):
        (await http.post("/admin/api/experts", json={"id": name, "backend": "embedded", "model": name})).raise_for_status()
    questions = [{"id": f"q{n}", "question": text, "answer": "?", "skills": [skill]} for n, (text, skill) in enumerate(asked)]
    (await http.post("/admin/api/questions", json={"questions": questions})).raise_for_status()
    outcomes = [
        {"expert_id": name, "question_id": f"q{n}", "skills": [skill], "correct": (skill == "weekdays") == (name == "calendar")}
        for n, (_, skill) in enumerate(asked)
        for name in ("numerals", "calendar")
    ]
    (await http.post("/admin/api/profile-runs/import", json={"outcomes": outcomes})).raise_for_status()
    strategy = {"id": "taught", "router": "ridge", "pick": {"kind": "top_k", "k": 1}}
    (await http.post("/admin/api/strategies", json=strategy)).raise_for_status()


async def num_taught(http: httpx.AsyncClient) -> float:
    (line,) = [line for line in (await http.get("/metrics")).text.splitlines() if line.startswith("consilium_feedback_taught_total ")]
    return float(line.rpartition(" ")[2])


async def batched(http: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """The output line of a batch of one request."""
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    files = [("file", ("in.jsonl", json.dumps(line).encode() + b"\n")), ("purpose", (None, "batch"))]
    file = (await http.post("/v1/files", files=files)).raise_for_status().json()
    given = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = (await http.post("/v1/batches", json=given)).raise_for_status().json()
    async with asyncio.timeout(WAIT_S):
        while (batch := (await http.get(f"/v1/batches/{batch['id']}")).json())["status"] not in {"completed", "failed"}:
            await asyncio.sleep(0.05)
    found: dict[str, Any] = json.loads((await http.get(f"/v1/files/{batch['output_file_id']}/content")).text)
    return found


async def test_feedback_teaches_the_router_that_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.bootstrap.Encoder", WordEncoder)
    body = {"model": "consilium/taught", "messages": [{"role": "user", "content": "Write MMXXIV in Arabic numerals."}]}
    async with running(settings_in(tmp_path)) as http:
        await until_ready(http)
        await measured(http)
        alone = await http.post("/v1/chat/completions", json=body)
        (await http.post("/v1/feedback", json={"request_id": alone.headers["x-request-id"], "correct": True})).raise_for_status()
        after_one = await num_taught(http)
        line = await batched(http, body)
        given = await http.post("/v1/feedback", json={"request_id": line["response"]["request_id"], "correct": True})
        after_both = await num_taught(http)

    assert alone.headers["x-consilium-experts"] == "numerals"
    assert line["response"]["body"]["choices"][0]["message"]["content"] == "2024"
    assert given.json()["scores"] == {"numerals": 1.0}
    assert (after_one, after_both) == (1.0, 2.0)
