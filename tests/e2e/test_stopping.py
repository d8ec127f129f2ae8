"""A service that is told to stop: what runs ends well, what comes is sent elsewhere, nothing that was counted is lost."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import ADMIN_KEY, Served, scripted_expert, served
from tests.fakes.fault_proxy import FaultProxy, Held, fault_proxy

pytestmark = pytest.mark.timeout(300)
PATIENCE_S = 60.0
CHAT = "/v1/chat/completions"
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
ASK = {"model": "expert", "messages": [{"role": "user", "content": "Who are you? #1"}]}
ANSWER = "I am expert and was asked #1."


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    log = tmp_path_factory.mktemp("expert") / "expert.log"
    with scripted_expert("expert", log) as address, fault_proxy(lambda: address) as proxy:
        yield proxy


def add_expert(service: Served, proxy: FaultProxy) -> None:
    card = {"id": "expert", "backend": "openai", "model": "expert", "base_url": proxy.base_url}
    httpx.post(f"{service.url}/admin/api/experts", json=card, headers=ADMIN, timeout=30).raise_for_status()


def until(fact: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not fact():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


class Reader(threading.Thread):
    """Reads one stream to its end."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url, self.text, self.has_begun = url, "", threading.Event()

    def run(self) -> None:
        with (
            contextlib.suppress(httpx.TransportError),  # what came until then is what is looked at
            httpx.stream("POST", self.url, json={**ASK, "stream": True}, timeout=PATIENCE_S) as response,
        ):
            for piece in response.iter_text():
                self.text += piece
                if "data: {" in self.text:
                    self.has_begun.set()


def test_running_streams_finish_and_new_requests_are_sent_elsewhere(proxy: FaultProxy, tmp_path: Path) -> None:
    with served(tmp_path, CONSILIUM_SEED_ZOO="false", CONSILIUM_DRAIN_TIMEOUT_S="60") as service:
        add_expert(service, proxy)
        proxy.once(Held(3))
        reader = Reader(service.url + CHAT)
        reader.start()
        assert reader.has_begun.wait(PATIENCE_S)
        service.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{service.url}/ready").status_code == 503)
        refused = httpx.post(service.url + CHAT, json=ASK, timeout=30)
        ready, health = httpx.get(f"{service.url}/ready"), httpx.get(f"{service.url}/health")
        proxy.release()
        reader.join(PATIENCE_S)
        status = service.process.wait(PATIENCE_S)

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
    assert refused.headers["retry-after"] == "1"
    assert (ready.json()["status"], health.status_code) == ("draining", 200)
    assert reader.text.endswith("data: [DONE]\n\n")
    assert status == 0


def test_a_second_signal_ends_what_runs(proxy: FaultProxy, tmp_path: Path) -> None:
    with served(tmp_path, CONSILIUM_SEED_ZOO="false", CONSILIUM_DRAIN_TIMEOUT_S="3600") as service:
        add_expert(service, proxy)
        proxy.once(Held(3))
        reader = Reader(service.url + CHAT)
        reader.start()
        assert reader.has_begun.wait(PATIENCE_S)
        service.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{service.url}/ready").status_code == 503)
        service.process.send_signal(signal.SIGTERM)
        status = service.process.wait(PATIENCE_S)
        reader.join(PATIENCE_S)

    assert status == 0
    assert "[DONE]" not in reader.text
    assert proxy.until_idle()


def test_what_was_answered_a_moment_before_is_counted_and_traced(proxy: FaultProxy, tmp_path: Path) -> None:
    """Both are written in groups, some time after the answer: the end of the service writes what waits."""
    with served(tmp_path, CONSILIUM_SEED_ZOO="false") as service:
        add_expert(service, proxy)
        made = httpx.post(f"{service.url}/admin/api/keys", json={"id": "team", "limits": {"tokens_per_day": 10**6}}, headers=ADMIN)
        key = {"authorization": f"Bearer {made.json()['key']}"}
        with httpx.Client(headers=key, timeout=30) as http:
            answers = [http.post(service.url + CHAT, json=ASK) for _ in range(7)]
        assert service.stop() == 0

    assert [answer.json()["choices"][0]["message"]["content"] for answer in answers] == [ANSWER] * 7
    with sqlite3.connect(tmp_path / "consilium.db") as database:
        used = database.execute("SELECT num_requests, num_calls FROM key_usage WHERE key_id = 'team' ORDER BY expert_id").fetchall()
        (num_traces,) = database.execute("SELECT count(*) FROM traces WHERE status = 'ok'").fetchone()
    database.close()
    assert sum(num_requests for num_requests, _ in used) == 7
    assert sum(num_calls for _, num_calls in used) == 7
    assert num_traces == 7
