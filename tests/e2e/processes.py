"""Start real servers for tests, wait for facts, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx

ROOT = Path(__file__).resolve().parents[2]
ADMIN_KEY = "test-admin-key-0123456789"

T = TypeVar("T")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def until(look: Callable[[], T | None], *, within_s: float) -> T:
    """What *look* gives as soon as that is something true. Fails when there is nothing *within_s*."""
    end = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < end, f"not within {within_s:g} s: {look.__name__}"
        time.sleep(0.05)
    return found


@contextmanager
def running(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    ready: str,
    within_s: float,
    trusts: ssl.SSLContext | bool = True,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* until the block ends; the block begins when GET *ready* answers 200. Ends its whole process group."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment}, cwd=ROOT, start_new_session=True
        )
    try:
        _wait(process, ready, within_s, log, trusts=trusts)
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


def _wait(process: subprocess.Popen[bytes], ready: str, within_s: float, log: Path, *, trusts: ssl.SSLContext | bool) -> None:
    until = time.monotonic() + within_s
    with httpx.Client(timeout=5, trust_env=False, verify=trusts) as client:
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

    def stop(self, *, within_s: float = 120.0) -> int:
        """SIGTERM: its exit status when it has ended."""
        self.process.terminate()
        return self.process.wait(within_s)

    def kill(self) -> None:
        """SIGKILL: it notices nothing."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def served(folder: Path, *, log: str = "serve.log", trusts: ssl.SSLContext | bool = True, **settings: str) -> Iterator[Served]:
    """A Consilium with its data in *folder*, ready. *trusts*: for one that speaks TLS, what its certificate is checked with."""
    port = free_port()
    environment = {"CONSILIUM_DATA_DIR": str(folder), "CONSILIUM_ADMIN_KEY": ADMIN_KEY, **settings}
    command = [sys.executable, "-m", "api.cli.main", "serve", "--port", str(port)]
    base = f"http{'s' * ('CONSILIUM_TLS_CERT' in settings)}://127.0.0.1:{port}"
    folder.mkdir(parents=True, exist_ok=True)
    with running(command, environment=environment, log=folder / log, ready=f"{base}/ready", within_s=240, trusts=trusts) as process:
        yield Served(base, process)


@contextmanager
def scripted_expert(name: str, log: Path) -> Iterator[tuple[str, int]]:
    """An expert that answers who it is and what it was asked (``benchmarks.scripted_expert``): its host and port."""
    port = free_port()
    command = [sys.executable, str(ROOT / "benchmarks" / "scripted_expert.py"), name, "--port", str(port)]
    with running(command, environment={"PYTHONPATH": str(ROOT)}, log=log, ready=f"http://127.0.0.1:{port}/v1/models", within_s=60):
        yield "127.0.0.1", port


@contextmanager
def consilium(folder: Path, **settings: str) -> Iterator[str]:
    """The same; gives its base URL, without ``/v1``."""
    with served(folder, **settings) as it:
        yield it.url


def command_line(*arguments: str, url: str, folder: Path) -> str:
    """What ``consilium ARGUMENTS`` prints, run against the server at *url*; raises when it fails."""
    environment = {**os.environ, "CONSILIUM_URL": url, "CONSILIUM_DATA_DIR": str(folder), "CONSILIUM_ADMIN_KEY": ADMIN_KEY}
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
