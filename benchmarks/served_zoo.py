"""A Consilium server of the benchmark's own: a free port, an empty data folder, gone afterwards."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
READY_TIMEOUT_S = 180.0
"""A first start builds the database and the index before it is ready."""
STOP_TIMEOUT_S = 30.0


class ServerFailed(RuntimeError):
    """The server did not become ready; the text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is ready."""

    base_url: str
    """Without ``/v1``."""
    pid: int
    ready_s: float
    """Seconds from the start of the process until ``/ready`` said so."""


@asynccontextmanager
async def served_zoo(
    data_dir: Path | None = None, *, variables: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
) -> AsyncIterator[Served]:
    """Start ``consilium serve``, wait until it is ready, and stop it at the end; with an empty database unless *data_dir* has one.

    *variables* are added to its environment, *arguments* to its command line.
    """
    with tempfile.TemporaryDirectory(prefix="consilium-benchmark-") as folder:
        port = free_port()
        base_url = f"http://127.0.0.1:{port}"
        log = Path(folder) / "server.log"
        with log.open("wb") as output:
            # Started in the empty folder, so that no .env and no CONSILIUM_* of the caller changes what is measured.
            inherited = {name: value for name, value in os.environ.items() if not name.startswith("CONSILIUM_")}
            env = {
                **inherited,
                "CONSILIUM_DATA_DIR": str(data_dir or Path(folder) / "data"),
                "PYTHONPATH": str(ROOT),
                "HF_HUB_OFFLINE": "1",
                **(variables or {}),
            }
            command = [sys.executable, "-m", "api.cli.main", "serve", "--port", str(port), *arguments]
            began = time.monotonic()
            process = subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT)  # noqa: ASYNC220
        try:
            await _until_ready(base_url, process, log)
            yield Served(base_url, process.pid, time.monotonic() - began)
        finally:
            await asyncio.to_thread(stop, process)


async def _until_ready(base_url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY_TIMEOUT_S
    missing = "no answer"
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        while time.monotonic() < end:
            if process.poll() is not None:
                raise ServerFailed(f"the server ended with status {process.returncode}:\n{tail(log)}")
            try:
                response = await client.get(f"{base_url}/ready")
            except httpx.TransportError as error:
                missing = str(error)
            else:
                if response.status_code == 200:
                    return
                missing = response.text
            await asyncio.sleep(0.3)
    raise ServerFailed(f"the server was not ready after {READY_TIMEOUT_S:g} s ({missing}):\n{tail(log)}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it: politely, then by force."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


def free_port() -> int:
    """A port where nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
