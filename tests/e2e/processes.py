"""Start real servers for tests, wait for facts, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], *, environment: Mapping[str, str], log: Path, ready: str, within_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* until the block ends; the block begins when GET *ready* answers 200. Ends its whole process group."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment}, cwd=ROOT, start_new_session=True
        )
    try:
        _wait(process, ready, within_s, log)
        yield process
    finally:
        for sign, patience_s in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
            try:
                os.killpg(process.pid, sign)
            except ProcessLookupError:
                break
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue


def _wait(process: subprocess.Popen[bytes], ready: str, within_s: float, log: Path) -> None:
    until = time.monotonic() + within_s
    with httpx.Client(timeout=5, trust_env=False) as client:
        while time.monotonic() < until:
            if process.poll() is not None:
                raise RuntimeError(f"ended with {process.returncode} before it was ready:\n{log.read_text()[-3000:]}")
            try:
                if client.get(ready).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.2)
    raise RuntimeError(f"not ready within {within_s:.0f} s:\n{log.read_text()[-3000:]}")


@dataclass(frozen=True)
class Served:
    """A Consilium that listens."""

    url: str
    """Without ``/v1``."""
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """SIGKILL: it notices nothing."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def served(folder: Path, *, log: str = "serve.log", **settings: str) -> Iterator[Served]:
    """A Consilium with its data in *folder*, ready."""
    port = free_port()
    environment = {"CONSILIUM_DATA_DIR": str(folder), "CONSILIUM_ADMIN_KEY": "test-admin-key", **settings}
    command = [sys.executable, "-m", "api.cli.main", "serve", "--port", str(port)]
    base = f"http://127.0.0.1:{port}"
    folder.mkdir(parents=True, exist_ok=True)
    with running(command, environment=environment, log=folder / log, ready=f"{base}/ready", within_s=240) as process:
        yield Served(base, process)


@contextmanager
def consilium(folder: Path, **settings: str) -> Iterator[str]:
    """The same; gives its base URL, without ``/v1``."""
    with served(folder, **settings) as it:
        yield it.url


def command_line(*arguments: str, url: str, folder: Path) -> str:
    """What ``consilium ARGUMENTS`` prints, run against the server at *url*; raises when it fails."""
    environment = {**os.environ, "CONSILIUM_URL": url, "CONSILIUM_DATA_DIR": str(folder), "CONSILIUM_ADMIN_KEY": "test-admin-key"}
    done = subprocess.run(
        [sys.executable, "-m", "api.cli.main", *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"consilium {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout
