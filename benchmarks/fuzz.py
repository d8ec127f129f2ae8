"""Bad requests over the whole API: ``python benchmarks/fuzz.py [--requests N] [--seed N] [--at-once N] [--check]``.

Starts a zoo, sends it what ``fuzz_requests`` generates, over sockets, and looks at every answer: no status of 500 or more, errors in
OpenAI's shape, nothing of the inside in any of them (a stack trace, a path, a library's words), an answer within its time. Afterwards
the service has to be ready, its registry as it was, and its answers right. Requests go to ``auto``, which has a fallback expert: a query
like nothing known is answered and does not hide what is looked for. ``--check`` ends with status 1 when anything was found.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import httpx
import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.fuzz_requests import MADE, Fuzzed, Fuzzer
from benchmarks.served_zoo import ROOT, served_zoo

KEY = "fuzz-admin-key-0123456789abcdef"
ANSWER_S = 60.0
"""Longest wait for an answer: above the service's own bounds for a body that does not come (30 s)."""
FRAMING_S = 1.0
"""Longest wait after what is no whole request: the service may well wait for the rest of it."""
MAX_SHOWN = 20
QUESTIONS = {
    "Write MCMXCIV in Arabic numerals.": "1994",
    "What is 417 + 268?": "685",
    "What day is 20 days after Monday?": "Sunday",
}
_INSIDE = re.compile(
    rb'Traceback|File "|, line \d+, in |site-packages|sqlalchemy|sqlite|asyncpg|alembic|pydantic|starlette|fastapi|uvicorn|httptools|orjson'
    rb"|xgrammar|torch|/(?:usr|home|root|tmp|var)/|\.py\b|0x[0-9a-f]{8}|<class |object at ",
    re.IGNORECASE,
)
"""What no answer to a bad request has a reason to tell."""
_ERROR_FIELDS = {"message", "type", "param", "code"}


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int | None
    """None: the connection was closed without an answer, or none came in time."""
    headers: bytes
    body: bytes
    seconds: float
    is_late: bool = False


@dataclass(slots=True)
class Summary:
    """What a run came to."""

    num_sent: int = 0
    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    """By kind, how often each status."""
    slowest: tuple[float, str] = (0.0, "")
    findings: list[str] = field(default_factory=list)

    def note(self, request: Fuzzed, reply: Reply) -> None:
        self.num_sent += 1
        status = "closed" if reply.status is None else str(reply.status)
        self.statuses.setdefault(request.kind, Counter())[status] += 1
        if request.is_framed and reply.seconds > self.slowest[0]:
            self.slowest = (reply.seconds, f"{request.method} {request.path[:80]} ({request.kind})")
        self.findings += (f"{why}\n    {request.shown}\n    -> {reply.status} {reply.body[:300]!r}" for why in wrong_with(request, reply))


def wrong_with(request: Fuzzed, reply: Reply) -> list[str]:
    """Everything that is wrong with *reply*; nothing, as it should be. Pure."""
    if reply.status is None:
        if not request.is_framed:
            return []
        return [f"no answer within {ANSWER_S:g} s" if reply.is_late else "the connection was closed without an answer"]
    found = [f"status {reply.status}"] if reply.status >= 500 else []
    sent = request.payload + unquote_to_bytes(request.payload)
    inside = {match.group() for match in _INSIDE.finditer(reply.body) if match.group() not in sent}
    if reply.status >= 400 and inside:
        found.append(f"tells of the inside: {sorted(inside)}")
    if any(place in reply.body for place in (str(ROOT).encode(), str(Path.home()).encode() + b"/")):
        found.append("tells a path of this machine")
    if b"\nx-injected" in reply.headers.lower():
        found.append("a header was injected")
    if reply.status >= 400 and request.method != "HEAD" and not _is_error(reply.body):
        found.append("an error that is not in OpenAI's shape")
    return found


def _is_error(body: bytes) -> bool:
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    error = told.get("error") if isinstance(told, dict) else None
    return isinstance(error, dict) and error.keys() >= _ERROR_FIELDS and isinstance(error["message"], str) and bool(error["message"])


async def exchange(host: str, port: int, request: Fuzzed) -> Reply:
    """Send *request* over a connection of its own."""
    began = time.monotonic()
    answer, is_late = b"", False
    reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(ANSWER_S if request.is_framed else FRAMING_S):
            try:
                writer.write(request.payload)
                await writer.drain()
            except ConnectionError:
                pass  # refused while still being sent: the answer is there all the same
            while piece := await reader.read(65536):
                answer += piece
                if request.is_framed and _is_whole(answer):  # with `connection: upgrade` the service may keep the connection open
                    break
    except TimeoutError:
        is_late = True
    except ConnectionError:
        pass  # closed hard, with what has come so far
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):  # go on, the answer follows
        head, _, body = body.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    if b"transfer-encoding: chunked" in head.lower():
        body = _unchunked(body)
    return Reply(int(status[1]) if status else None, head, body, time.monotonic() - began, is_late)


def _is_whole(answer: bytes) -> bool:
    """Whether *answer* ends where its head says."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 1"):
        head, _, body = body.partition(b"\r\n\r\n")
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
    return length is not None and len(body) >= int(length[1])


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.partition(b";")[0] or b"0", 16)
        whole, body = whole + rest[:length], rest[length + 2 :]
    return whole


async def prepare(url: str, key: str) -> str:
    """Make what the requests may change. The registry afterwards, as text."""
    async with _admin(url, key) as http:
        expert = {"id": MADE, "backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "enabled": False}
        for resource, body in (("experts", expert), ("strategies", {"id": MADE, "enabled": False}), ("keys", {"id": MADE})):
            (await http.post(f"/admin/api/{resource}", json=body)).raise_for_status()
        return await registry(http)


async def registry(http: httpx.AsyncClient) -> str:
    """Experts, strategies and skills without what was made for the run."""
    found = []
    for resource in ("experts", "strategies", "skills", "questions"):
        answer = await http.get(f"/admin/api/{resource}", params={"limit": 1000})
        rows = [row for row in answer.raise_for_status().json()["data"] if row.get("id") != MADE]
        found += [{name: value for name, value in row.items() if name != "health"} for row in rows]
    return orjson.dumps(found, option=orjson.OPT_SORT_KEYS).decode()


async def still_well(url: str, key: str, before: str) -> list[str]:
    """What is wrong with the service after a run."""
    found = []
    async with _admin(url, key) as http:
        states = [await http.get(path) for path in ("/health", "/ready")]
        found += [
            f"afterwards {state.url.path} says {state.text[:200]}" for state in states if state.json()["status"] not in {"ok", "ready"}
        ]
        for question, right in QUESTIONS.items():
            body = {"model": "auto", "messages": [{"role": "user", "content": question}]}
            answer = await http.post("/v1/chat/completions", json=body)
            said = answer.json()["choices"][0]["message"]["content"] if answer.status_code == 200 else answer.text
            if said != right:
                found.append(f"afterwards {question!r} is answered with {said[:200]!r}")
        if await registry(http) != before:
            found.append("the registry has changed")
    return found


def _admin(url: str, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=ANSWER_S, trust_env=False)


async def fuzz(url: str, key: str, *, num: int, seed: int, at_once: int = 8) -> Summary:
    """Send *num* requests to the service at *url* (without ``/v1``), whose admin key is *key*."""
    address = urlsplit(url)
    host, port = address.hostname or "127.0.0.1", address.port or 80
    before = await prepare(url, key)
    summary, requests = Summary(), iter(Fuzzer(seed, host=f"{host}:{port}", key=key).requests(num))

    async def work() -> None:
        for request in requests:
            summary.note(request, await exchange(host, port, request))

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    summary.findings += await still_well(url, key, before)
    return summary


def show(console: Console, summary: Summary) -> None:
    """The table, and what was found."""
    columns = sorted({status for counts in summary.statuses.values() for status in counts})
    table = Table("what was done", "sent", *columns, title=f"{summary.num_sent:,} bad requests: how they were answered")
    for kind, counts in sorted(summary.statuses.items()):
        table.add_row(kind, f"{counts.total():,}", *_cells(counts[status] for status in columns))
    whole = sum(summary.statuses.values(), Counter[str]())
    table.add_row("all", f"{whole.total():,}", *_cells(whole[status] for status in columns))
    console.print(table)
    console.print(f"the slowest answer took {summary.slowest[0]:.1f} s: {summary.slowest[1]}", markup=False, highlight=False)
    for finding in summary.findings[:MAX_SHOWN]:
        console.print(f"FOUND: {finding}", markup=False, highlight=False)
    if len(summary.findings) > MAX_SHOWN:
        console.print(f"… and {len(summary.findings) - MAX_SHOWN} more")


def _cells(counts: Iterable[int]) -> list[str]:
    return [f"{count:,}" if count else "" for count in counts]


async def main() -> int:
    parser = argparse.ArgumentParser(description="Bad requests over the whole API.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--check", action="store_true", help="status 1 when anything was found")
    arguments = parser.parse_args()
    console = Console(width=160)
    with tempfile.TemporaryDirectory(prefix="consilium-fuzz-") as folder:
        async with served_zoo(Path(folder) / "data", variables={"CONSILIUM_ADMIN_KEY": KEY}) as zoo:
            began = time.monotonic()
            summary = await fuzz(zoo.base_url, KEY, num=arguments.requests, seed=arguments.seed, at_once=arguments.at_once)
            took_s = time.monotonic() - began
    show(console, summary)
    ok = not summary.findings
    wanted = "no 5xx, errors in OpenAI's shape, nothing of the inside told, and the service as it was"
    console.print(f"{'reached' if ok else 'MISSED'}: {wanted} (seed {arguments.seed}, {took_s:.0f} s)", highlight=False)
    return int(arguments.check and not ok)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
