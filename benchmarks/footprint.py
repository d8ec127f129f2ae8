"""What the served zoo costs: time to ready (first and second start), resident memory, import time of the orchestrator.

``python benchmarks/footprint.py`` starts the service twice on one fresh data folder, sends questions in between, and prints
a table. The targets: a second start ready within 20 s, under 1.5 GB resident, ``import orchestrator`` under 100 ms without
torch.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import httpx
import psutil

from benchmarks.served_zoo import ROOT, served_zoo

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


async def start_and_ask(data_dir: Path, num_questions: int) -> tuple[float, float, float]:
    """``(seconds to ready, MB resident when ready, MB resident after the questions)`` of one start."""
    rows = [json.loads(line) for line in (ROOT / "zoo" / "test.jsonl").read_text().splitlines()]
    questions = [row["question"] for row in rows[:: len(rows) // num_questions]]
    gate = asyncio.Semaphore(16)
    async with served_zoo(data_dir) as served, httpx.AsyncClient(timeout=60, trust_env=False) as client:
        idle_mb = _resident_mb(served.pid)

        async def ask(question: str) -> None:
            body = {"model": "auto", "messages": [{"role": "user", "content": question}]}
            async with gate:
                await client.post(f"{served.base_url}/v1/chat/completions", json=body)

        await asyncio.gather(*(ask(question) for question in questions))
        return served.ready_s, idle_mb, _resident_mb(served.pid)


def _resident_mb(pid: int) -> float:
    """Resident memory of the process and its children."""
    process = psutil.Process(pid)
    return sum(float(p.memory_info().rss) for p in (process, *process.children(recursive=True))) / 1e6


async def main() -> None:
    seconds, torch = import_cost()
    print(f"import orchestrator       {seconds * 1e3:8.0f} ms   torch imported: {'yes' if torch else 'no'}")
    with tempfile.TemporaryDirectory() as name:
        for which in ("first", "second"):
            ready_s, idle_mb, busy_mb = await start_and_ask(Path(name), NUM_QUESTIONS)
            print(f"{which:6} start: ready in {ready_s:8.1f} s    resident {idle_mb:6.0f} MB, then {busy_mb:6.0f} MB")


if __name__ == "__main__":
    asyncio.run(main())
