"""``consilium serve --workers``: several processes on one port, looked after by the one that was started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.processes import ADMIN_KEY, ROOT, Served, served

pytestmark = pytest.mark.timeout(300)
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("workers"), CONSILIUM_WORKERS="2", CONSILIUM_SEED_ZOO="false") as service:
        until(lambda: answering(service) == {"0", "1"})
        yield service


def until(fact: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not fact():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.2)


def answering(service: Served) -> set[str]:
    """The workers that answer on connections of their own."""
    return {found[1] for _ in range(24) if (found := re.search(r'worker="(\d+)"', httpx.get(f"{service.url}/metrics").text))}


def workers_of(pid: int) -> list[psutil.Process]:
    """The parent's children, without multiprocessing's tracker of resources."""
    return [child for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())]


def test_what_one_is_told_another_knows(service: Served) -> None:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    card = {"id": "told-to-one", "backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    with httpx.Client(base_url=service.url, headers=headers) as http:
        assert http.post("/admin/api/experts", json=card).status_code == 201

    until(lambda: all(httpx.get(f"{service.url}/v1/models/told-to-one").status_code == 200 for _ in range(16)))


def test_an_expert_that_needs_a_managed_server_is_told_why_there_is_none(service: Served) -> None:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    card = {"id": "managed", "backend": "vllm", "model": "/models/m"}
    with httpx.Client(base_url=service.url, headers=headers) as http:
        assert http.post("/admin/api/experts", json=card).status_code == 201
        asked = {"model": "managed", "messages": [{"role": "user", "content": "hello"}]}
        answers = [http.post("/v1/chat/completions", json=asked) for _ in range(2)]
        assert http.delete("/admin/api/experts/managed").status_code == 204

    assert {answer.status_code for answer in answers} <= {502, 503}
    assert all("CONSILIUM_WORKERS=1" in answer.text for answer in answers)


def test_one_that_is_killed_is_replaced_and_the_other_answers_meanwhile(service: Served) -> None:
    victim = workers_of(service.process.pid)[1]
    victim.kill()
    victim.wait(10)

    assert all(httpx.get(f"{service.url}/ready").status_code == 200 for _ in range(16))
    until(lambda: answering(service) == {"0", "1"})
    assert victim.pid not in {worker.pid for worker in workers_of(service.process.pid)}


def test_a_second_service_on_the_port_is_refused(service: Served, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "api.cli.main", "serve", "--workers", "2", "--port", str(httpx.URL(service.url).port)]
    done = subprocess.run([*command, "--data-dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert "another process listens there" in done.stderr


def test_they_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with served(tmp_path, CONSILIUM_WORKERS="2", CONSILIUM_SEED_ZOO="false") as service:
        workers = workers_of(service.process.pid)
        service.kill()

        gone, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)

    assert (len(gone), alive) == (2, [])


def test_a_stop_ends_all_of_them_with_status_0(tmp_path: Path) -> None:
    with served(tmp_path, CONSILIUM_WORKERS="2", CONSILIUM_SEED_ZOO="false") as service:
        workers = workers_of(service.process.pid)
        os.kill(service.process.pid, signal.SIGTERM)

        assert service.process.wait(PATIENCE_S) == 0
        assert not psutil.wait_procs(workers, timeout=5)[1]
