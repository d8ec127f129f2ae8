"""What the served zoo costs: time to ready (first and second start), resident memory, import time of the orchestrator.

``python benchmarks/footprint.py`` starts the service twice on one fresh data folder, sends questions in between, and prints
a table. The targets: a second start ready within 20 s, under 1.5 GB resident, ``import orchestrator`` under 100 ms without
torch.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import psutil

ROOT = Path(__file__).resolve().parents[1]
NUM_QUESTIONS = 200
_IMPORT = """
import sys, time
began = time.perf_counter()
import orchestrator.pipeline
print(time.perf_counter() - began, "torch" in sys.modules)
"""


def import_cost(repeats: int = 7) -> tuple[float, bool]:
    """``(median seconds, whether torch came along)`` of importing the orchestrator in a fresh interpreter."""
    seconds, torch = [], False
    for _ in range(repeats):
        out = subprocess.run([sys.executable, "-c", _IMPORT], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        seconds.append(float(out[0]))
        torch = torch or out[1] == "True"
    return statistics.median(seconds), torch


async def start_and_ask(folder: Path, num_questions: int) -> tuple[float, float, float]:
    """``(seconds to ready, MB resident when ready, MB resident after the questions)`` of one start."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    began = time.perf_counter()
    with (folder / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "api.cli.main", "serve", "--port", str(port)],
            env={**os.environ, "CONSILIUM_DATA_DIR": str(folder)}, cwd=ROOT, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as client:
            while not await _is_ready(client, base):
                if process.poll() is not None or time.perf_counter() - began > 300:
                    raise SystemExit(f"the service did not start:\n{(folder / 'serve.log').read_text()[-2000:]}")
                await asyncio.sleep(0.05)
            ready_s, idle_mb = time.perf_counter() - began, _resident_mb(process.pid)
            rows = [json.loads(line) for line in (ROOT / "zoo" / "test.jsonl").read_text().splitlines()][:: 720 // num_questions]
            gate = asyncio.Semaphore(16)

            async def ask(question: str) -> None:
                body = {"model": "auto", "messages": [{"role": "user", "content": question}]}
                async with gate, client.post(f"{base}/v1/chat/completions", json=body) as answer:
                    await answer.read()

            await asyncio.gather(*(ask(row["question"]) for row in rows))
            return ready_s, idle_mb, _resident_mb(process.pid)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 60)


async def _is_ready(client: aiohttp.ClientSession, base: str) -> bool:
    try:
        async with client.get(f"{base}/ready", timeout=aiohttp.ClientTimeout(5)) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _resident_mb(pid: int) -> float:
    """Resident memory of the process and its children."""
    process = psutil.Process(pid)
    return sum(p.memory_info().rss for p in (process, *process.children(recursive=True))) / 1e6


async def main() -> None:
    seconds, torch = import_cost()
    print(f"import orchestrator       {seconds * 1e3:8.0f} ms   torch imported: {'yes' if torch else 'no'}")
    with tempfile.TemporaryDirectory() as name:
        for which in ("first", "second"):
            ready_s, idle_mb, busy_mb = await start_and_ask(Path(name), NUM_QUESTIONS)
            print(
                f"{which:6} start: ready in {ready_s:8.1f} s    resident {idle_mb:6.0f} MB, after {NUM_QUESTIONS} questions {busy_mb:6.0f} MB"
            )


if __name__ == "__main__":
    asyncio.run(main())
