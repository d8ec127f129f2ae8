"""The stack as its users see it: addresses, keys, questions, and load that goes on while something breaks."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.compose.engine import Compose, EngineFailed, run

WORKERS = ("vllm-generalist", "vllm-arithmetic", "vllm-numerals")
ON_VLLM = frozenset({"generalist", "sequences", "comparison", "arithmetic", "numerals"})
"""The experts of deploy/compose/experts.yaml."""
ANSWER_S = 60.0

_COLUMNS = """
    SELECT table_name || '=' || string_agg('"' || column_name || '"', ', ' ORDER BY column_name)
    FROM information_schema.columns WHERE table_schema = 'public' GROUP BY table_name ORDER BY 1
"""
_CONTENT = """
    SELECT '{table}=' || count(*) || ' rows ' || coalesce(md5(string_agg(line, '|' ORDER BY line)), '')
    FROM (SELECT ROW({columns})::text AS line FROM "{table}") AS lines
"""

_METRICS_OF_A_REPLICA = """
import os, urllib.request as r
key = {"authorization": "Bearer " + os.environ["CONSILIUM_API_KEYS"]}
print(r.urlopen(r.Request("http://127.0.0.1:8080/metrics", headers=key)).read().decode())
"""


@dataclass
class Outcome:
    """What a client saw of its requests, by what came of each."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0

    @property
    def failures(self) -> dict[str, int]:
        return {what: count for what, count in self.counts.items() if what != "right"}


class Stack:
    """One project of the engine, and clients for it."""

    def __init__(self, compose: Compose, logs: Path) -> None:
        self.compose = compose
        self.logs = logs
        self.url = f"http://127.0.0.1:{compose.env['STACK_PORT']}"
        self.gateway_url = f"http://127.0.0.1:{compose.env['STACK_GATEWAY_PORT']}"
        self.prometheus_url = f"http://127.0.0.1:{compose.env['STACK_PROMETHEUS_PORT']}"

    # --- what happened ----------------------------------------------------------------------------------------------

    def tell(self, text: str) -> None:
        """A line of the report, on the terminal (``-s``) and in the file ``report.txt``."""
        print(text, flush=True)
        with (self.logs / "report.txt").open("a", encoding="utf-8") as report:
            report.write(f"{text}\n")

    def keep_logs(self) -> None:
        """What every container has written, a file each."""
        with suppress(EngineFailed):
            names = self.compose("--profile", "replicas", "--profile", "monitoring", "config", "--services").split()
            for service in names:
                with suppress(EngineFailed):
                    identity = self.compose.container(service).id
                    with (self.logs / f"{service}.log").open("w", encoding="utf-8") as file:
                        file.write(run(["sh", "-c", f"docker logs --timestamps {identity} 2>&1"]))

    # --- asking -----------------------------------------------------------------------------------------------------

    @contextmanager
    def client(self, url: str | None = None, *, admin: bool = False) -> Iterator[httpx.Client]:
        """An HTTP client with a key of the data plane, or the admin's."""
        key = self.compose.env["STACK_ADMIN_KEY" if admin else "STACK_API_KEYS"]
        with httpx.Client(
            base_url=url or self.url, headers={"authorization": f"Bearer {key}"}, timeout=ANSWER_S, trust_env=False
        ) as client:
            yield client

    def ask(self, question: str, *, model: str = "auto", url: str | None = None) -> tuple[str, str]:
        """The answer, and who gave it."""
        with self.client(url) as client:
            answer = client.post("/v1/chat/completions", json=body(question, model=model))
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["message"]["content"], answer.headers["x-consilium-experts"]

    def until_ready(self, url: str, *, timeout_s: float) -> float:
        """Seconds until ``/ready`` at *url* says 200."""
        began = time.monotonic()
        with httpx.Client(trust_env=False, timeout=5) as client:
            while True:
                with suppress(httpx.HTTPError):
                    if client.get(f"{url}/ready").status_code == 200:
                        return time.monotonic() - began
                if time.monotonic() - began > timeout_s:
                    raise AssertionError(f"{url}/ready is not 200 after {timeout_s:g} s")
                time.sleep(0.1)

    @contextmanager
    def load(self, url: str, *, num_clients: int = 4) -> Iterator[Outcome]:
        """*num_clients* that ask one question after the other while the block runs. The outcome is whole at its end."""
        outcome, lock, over = Outcome(), threading.Lock(), threading.Event()
        questions = self._answerable(url)

        def ask_on(number: int) -> None:
            with self.client(url) as client:
                for question, right in itertools.cycle(questions[number:] + questions[:number]):
                    if over.is_set():
                        return
                    began = time.monotonic()
                    try:
                        answer = client.post("/v1/chat/completions", json=body(question))
                    except httpx.HTTPError as error:
                        what = type(error).__name__
                    else:
                        what = f"status {answer.status_code}"
                        if answer.status_code == 200:
                            text = answer.json()["choices"][0]["message"]["content"]
                            what = "right" if text.strip() == right else f"wrong: {question} {text}"
                    with lock:
                        outcome.counts[what] += 1
                        outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - began)

        threads = [threading.Thread(target=ask_on, args=(number,)) for number in range(num_clients)]
        for thread in threads:
            thread.start()
        try:
            yield outcome
        finally:
            over.set()
            for thread in threads:
                thread.join(ANSWER_S)

    def _answerable(self, url: str) -> list[tuple[str, str]]:
        """Questions with their answers, of which the tiny models get these right when nothing is broken."""
        asked = [(f"What's {first} + {first // 2}?", str(first + first // 2)) for first in range(11, 92, 4)]
        right = [(question, answer) for question, answer in asked if self.ask(question, url=url)[0].strip() == answer]
        assert len(right) > len(asked) // 2, right
        return right

    # --- what is kept -------------------------------------------------------------------------------------------------

    def sql(self, statement: str) -> list[str]:
        """The rows of *statement*, as psql prints them."""
        return self.compose.inside("db", "psql", "-U", "consilium", "-d", "consilium", "-At", "-c", statement).splitlines()

    def columns(self) -> dict[str, str]:
        """Each table's columns."""
        return dict(row.split("=", 1) for row in self.sql(_COLUMNS))

    def content(self, columns: dict[str, str] | None = None) -> dict[str, str]:
        """The number of rows of each table, and a checksum over them; of all columns, or of *columns*."""
        asked = [_CONTENT.format(table=table, columns=names) for table, names in (columns or self.columns()).items()]
        return dict(row.split("=", 1) for row in self.sql(" UNION ALL ".join(asked)))

    def served_by_vllm(self) -> float:
        """Answers that the vLLM workers have finished, all together."""
        script = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/metrics').read().decode())"
        lines = [line for worker in WORKERS for line in self.compose.inside(worker, "python3", "-c", script).splitlines()]
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:request_success_total{"))

    def num_refused(self, replica: str) -> float:
        """Requests that *replica* has answered with 503; probes of its readiness are not counted."""
        lines = self.compose.inside(replica, "python", "-c", _METRICS_OF_A_REPLICA).splitlines()
        refused = [line for line in lines if line.startswith("consilium_http_requests_total{") and 'status="503"' in line]
        return sum(float(line.rpartition(" ")[2]) for line in refused if 'route="/ready"' not in line)


def body(question: str, *, model: str = "auto") -> dict[str, Any]:
    """A chat request."""
    return {"model": model, "messages": [{"role": "user", "content": question}]}


def batch_file(questions: list[str]) -> bytes:
    """The input of a batch."""
    return b"".join(
        json.dumps({"custom_id": f"q{i}", "method": "POST", "url": "/v1/chat/completions", "body": body(question)}).encode() + b"\n"
        for i, question in enumerate(questions)
    )
