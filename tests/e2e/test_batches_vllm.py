"""A batch on real vLLM servers, one in memory at a time: a server is killed in the middle, then the service itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from openai import OpenAI

from tests.e2e.processes import served
from tests.e2e.test_batches import counts, over, rows, some_done, submitted, until
from tests.e2e.test_engine_vllm import PYTHON, ROOM_FOR_ONE_MB, workers
from tests.fakes.batch_rig import chat_line
from tests.fakes.vllm import processes

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

NUM_LINES = 500
PATIENCE_S = 600.0
"""Loads take 30 to 90 s here, and a killed server costs one more."""


def test_killed_servers_and_services_cost_a_batch_nothing(tmp_path: Path) -> None:
    """Every line is answered once, by the expert that it names; where nothing is killed each server is loaded once."""
    assert PYTHON.exists(), "vLLM is not installed; run `make vllm`"
    lines = [chat_line(f"n{n}", f"Write {n + 1} in words.", model="numerals") for n in range(NUM_LINES)]
    lines += [chat_line(f"t{n}", f"Write the word 'lamp{'abcdefghij'[n % 10]}' in capital letters.", model="text") for n in range(50)]
    folder = tmp_path / "data"
    settings = {
        "CONSILIUM_ENGINE": "vllm",
        "CONSILIUM_VLLM_PYTHON": str(PYTHON),
        "CONSILIUM_WORKER_MEMORY_MB": ROOM_FOR_ONE_MB,
        "CONSILIUM_BATCH_LEASE_S": "3",
    }
    with served(folder, log="first.log", **settings) as first, OpenAI(base_url=f"{first.url}/v1", api_key="none") as client:
        batch = until(client, submitted(client, lines), some_done(20), within_s=PATIENCE_S)
        (pid,) = [row["pid"] for row in workers(first.url).values() if row["state"] == "ready"]
        os.killpg(pid, signal.SIGKILL)
        before = counts(batch)[1]
        batch = until(client, batch, some_done(before + 100), within_s=PATIENCE_S)
        first.kill()
    with served(folder, log="second.log", **settings) as second, OpenAI(base_url=f"{second.url}/v1", api_key="none") as client:
        batch = over(client, client.batches.retrieve(batch.id), within_s=PATIENCE_S)
        answers = rows(client, batch.output_file_id)
        failed = rows(client, batch.error_file_id)

    assert failed == {}
    assert set(answers) == {line["custom_id"] for line in lines}
    assert counts(batch) == (len(lines), len(lines), 0)
    assert {row["response"]["body"]["model"] for row in answers.values()} == {"numerals", "text"}
    assert answers["n41"]["response"]["body"]["choices"][0]["message"]["content"] == "forty-two"
    assert not processes(folder / "vllm"), "no server is left behind"
