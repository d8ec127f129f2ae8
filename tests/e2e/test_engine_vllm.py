"""The zoo on vLLM servers that the service starts itself, with memory for one of them: the same answers as in process."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.e2e.processes import ADMIN_KEY, ROOT, consilium
from tests.fakes.vllm import processes
from zoo.release import FOLDER

PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
ROOM_FOR_ONE_MB = "4000"
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]


def questions(category: str, number: int) -> list[str]:
    rows = (json.loads(line) for line in (FOLDER / "test.jsonl").read_text(encoding="utf-8").splitlines())
    return [row["question"] for row in rows if row["category"] == category][:number]


def answer(url: str, expert: str, question: str) -> tuple[str, Any]:
    """What the expert answers, and its reasoning. A load may come before: 30 to 90 s, on a machine that has nothing else to do."""
    with OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=580, max_retries=0) as client:
        made = client.chat.completions.create(model=expert, messages=[{"role": "user", "content": question}])
    message = made.choices[0].message
    return message.content or "", (message.model_extra or {}).get("reasoning_content")


def workers(url: str) -> dict[str, Any]:
    told = httpx.get(f"{url}/admin/api/workers", headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=30, trust_env=False)
    return {row["id"]: row for row in told.raise_for_status().json()["data"]}


def ready(url: str) -> list[str]:
    return [name for name, row in workers(url).items() if row["state"] == "ready"]


def test_the_zoo_on_vllm_answers_as_it_does_in_process(zoo: str, tmp_path: Path) -> None:
    """Two servers and the adapters of one, in memory for one server; one of them is killed in between."""
    assert PYTHON.exists(), "vLLM is not installed; run `make vllm`"
    asked = [(expert, question) for expert in ("comparison", "sequences", "numerals") for question in questions(expert, 6)]
    settings = {"CONSILIUM_ENGINE": "vllm", "CONSILIUM_VLLM_PYTHON": str(PYTHON), "CONSILIUM_WORKER_MEMORY_MB": ROOM_FOR_ONE_MB}
    with consilium(tmp_path / "data", **settings) as url:
        assert ready(url) == [], "ready does not wait for servers"
        pairs = [(answer(zoo, expert, question), answer(url, expert, question)) for expert, question in asked]
        assert ready(url) == ["numerals"], "the adapters' server had to make room"
        assert {name: row["num_loads"] for name, row in workers(url).items() if row["num_loads"]} == {"generalist": 1, "numerals": 1}

        os.killpg(workers(url)["numerals"]["pid"], signal.SIGKILL)
        expert, question = asked[-1]
        assert answer(url, expert, question) == pairs[-1][1], "from a new server"
        assert workers(url)["numerals"]["num_loads"] == 2

    same = sum(ours == theirs for ours, theirs in pairs)
    print(f"\n{same} of {len(pairs)} answers are equal, reasoning included")
    assert same >= len(pairs) - 1, [pair for pair in pairs if pair[0] != pair[1]]  # bfloat16 and float32 may differ at a tie
    assert not processes(tmp_path / "data" / "vllm"), "a service that ends leaves no server behind"
