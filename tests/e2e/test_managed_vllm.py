"""A real vLLM server on the CPU, started, watched and stopped by the service's supervisor: two starts for the whole story."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from tests.e2e.processes import ROOT
from tests.fakes.vllm import processes
from workers.vllm.command import Installation, ServerLaunch, VllmProgram
from workers.vllm.limits import VllmLimits
from workers.vllm.status import ServerState
from workers.vllm.supervisor import Supervisor
from zoo.release import WEIGHTS

PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
LAUNCH = ServerLaunch(
    "zoo", str(WEIGHTS / "generalist"), "generalist", dtype="bfloat16", max_model_len=512, max_lora_rank=32, max_loras=2
)  # fmt: skip
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(2400)]


async def answers(supervised: Supervisor) -> list[str]:
    """What the generalist and its adapter answer to one question each, reasoning cut off."""
    async with AsyncOpenAI(base_url=supervised.base_url("zoo"), api_key="unused", timeout=60) as client:
        said = []
        for model in ("generalist", "comparison"):
            question = {"role": "user", "content": "Is the number 348 odd or even?"}
            made = await client.chat.completions.create(model=model, messages=[question], temperature=0, max_tokens=64)  # type: ignore[list-item]
            said.append((made.choices[0].message.content or "").rsplit("</think>", 1)[-1])
    return said


async def test_a_managed_vllm_serves_sleeps_wakes_comes_back_and_goes(tmp_path: Path) -> None:
    assert PYTHON.exists(), "vLLM is not installed; run `make vllm`"
    root = tmp_path / "vllm"
    limits = VllmLimits(start_timeout_s=900.0)  # 30 to 90 s, on a machine that has nothing else to do
    supervised = Supervisor(root, Installation(cpu=VllmProgram.module(PYTHON)), launches=[LAUNCH], limits=limits)
    assert await supervised.open() == ()
    try:
        await supervised.start("zoo")
        await supervised.load_adapter("zoo", "comparison", WEIGHTS / "comparison")
        first = await answers(supervised)
        assert first[1] == "even", "the adapter answers, not its base"

        await supervised.sleep("zoo")
        assert supervised.status("zoo").state is ServerState.ASLEEP
        await supervised.wake("zoo")
        assert await answers(supervised) == first

        before, pid = processes(root), supervised.status("zoo").pid
        assert len(before) >= 3, "a shim, the API's process and the engine's, which renames itself"
        assert pid is not None
        os.killpg(pid, signal.SIGKILL)
        await comes_back(supervised, pid)
        assert not before & processes(root)
        assert await answers(supervised) == first, "with its adapter"

        measured = supervised.status("zoo").measured
        print(f"\n{measured}")
        assert measured.memory_mb is not None
        assert 300 < measured.memory_mb < 8000
    finally:
        await supervised.close()
    assert not processes(root)


async def comes_back(supervised: Supervisor, pid: int) -> None:
    end = time.monotonic() + 1000
    while supervised.status("zoo").state is not ServerState.READY or supervised.status("zoo").pid == pid:
        assert time.monotonic() < end, supervised.status("zoo").reason
        await asyncio.sleep(0.2)
