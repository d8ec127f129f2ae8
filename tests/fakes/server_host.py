"""A host whose servers come and go, fail and hang when the test says so. It checks what a real one would suffer from."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from domain.deadline import Deadline
from workers.residency.limits import ResidencyLimits
from workers.residency.manager import OnProgress, Residency
from workers.residency.servers import ServerSpec


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeHost:
    """Satisfies ``workers.residency.host.ServerHost``. ``calls`` has what was asked of it, as "load a"."""

    def __init__(self, specs: Iterable[ServerSpec], memory_mb: float, clock: Clock | None = None) -> None:
        self.specs = {spec.id: spec for spec in specs}
        self.clock = clock or Clock()
        self.calls: list[str] = []
        self.cancelled: list[str] = []
        self.takes_s: dict[str, float] = {}
        """Seconds on the clock that a call takes, by its verb."""
        self.failures: dict[str, deque[Exception]] = {}
        """By call: what the next ones raise."""
        self.held: Counter[str] = Counter()
        """Requests inside each server, as the guests count them."""
        self.used_mb: dict[str, float] = {}
        self._memory_mb = memory_mb
        self._gates: dict[str, asyncio.Event] = {}
        self._busy: set[str] = set()

    def block(self, call: str) -> asyncio.Event:
        """Make *call* wait, whenever it comes, until the event that is returned is set."""
        return self._gates.setdefault(call, asyncio.Event())

    def fail(self, call: str, *errors: Exception) -> None:
        self.failures.setdefault(call, deque()).extend(errors)

    async def load(self, server_id: str) -> None:
        assert server_id not in self.used_mb, f"{server_id} is loaded twice"
        self._use(server_id, self.specs[server_id].memory_mb)
        try:
            await self._do("load", server_id)
        except BaseException:
            self._use(server_id, None)
            raise

    async def stop(self, server_id: str) -> None:
        self._check_idle(server_id)
        await self._do("stop", server_id)
        self._check_idle(server_id)
        self._use(server_id, None)

    async def sleep(self, server_id: str) -> None:
        self._check_idle(server_id)
        await self._do("sleep", server_id)
        self._check_idle(server_id)
        self._use(server_id, self.specs[server_id].asleep_mb)

    async def wake(self, server_id: str) -> None:
        assert self.used_mb[server_id] == self.specs[server_id].asleep_mb
        self._use(server_id, self.specs[server_id].memory_mb)
        await self._do("wake", server_id)

    async def _do(self, verb: str, server_id: str) -> None:
        call = f"{verb} {server_id}"
        self.calls.append(call)
        assert server_id not in self._busy, f"{call} while another change of it runs"
        self._busy.add(server_id)
        try:
            await asyncio.sleep(0)
            if call in self._gates:
                await self._gates[call].wait()
            self.clock.now += self.takes_s.get(verb, 0.0)
            if self.failures.get(call):
                raise self.failures[call].popleft()
        except asyncio.CancelledError:
            self.cancelled.append(call)
            await asyncio.sleep(0)  # a process takes a moment to end
            raise
        finally:
            self._busy.remove(server_id)

    def _use(self, server_id: str, memory_mb: float | None) -> None:
        self.used_mb.pop(server_id, None)
        if memory_mb is not None:
            self.used_mb[server_id] = memory_mb
        assert sum(self.used_mb.values()) <= self._memory_mb + 1e-6, f"out of memory: {self.used_mb}"

    def _check_idle(self, server_id: str) -> None:
        assert not self.held[server_id], f"{server_id} is taken away while it serves"


class Guest:
    """A request that holds a server until it is told to leave."""

    def __init__(
        self, residency: Residency, host: FakeHost, server_id: str, *, deadline_s: float = 600, on_progress: OnProgress | None = None
    ) -> None:
        self.server_id = server_id
        self.inside, self.leave = asyncio.Event(), asyncio.Event()
        self._residency, self._host, self._on_progress = residency, host, on_progress
        self._deadline = Deadline.after(deadline_s)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._residency.hold(self.server_id, self._deadline, self._on_progress))
            self._host.held[self.server_id] += 1
            stack.callback(self._host.held.subtract, {self.server_id: 1})
            self.inside.set()
            await self.leave.wait()

    async def go(self) -> None:
        """Leave, and wait until it has left."""
        self.leave.set()
        await self.task


class House(NamedTuple):
    """A host and what manages it."""

    residency: Residency
    host: FakeHost

    def guest(self, server_id: str, **options: Any) -> Guest:
        return Guest(self.residency, self.host, server_id, **options)

    async def inside(self, server_id: str) -> Guest:
        """A guest that has got in. Raises what one that was turned away was told."""
        guest = self.guest(server_id)
        entering = asyncio.create_task(guest.inside.wait())
        await asyncio.wait({entering, guest.task}, return_when=asyncio.FIRST_COMPLETED)
        if not entering.done():
            entering.cancel()
            await guest.task
        return guest

    async def visit(self, server_ids: Iterable[str]) -> None:
        """One request after the other."""
        for server_id in server_ids:
            await (await self.inside(server_id)).go()

    def state(self, server_id: str) -> str:
        return next(server.state for server in self.residency.snapshot().servers if server.id == server_id)


def house(
    memory_mb: float = 8.0,
    *,
    asleep_mb: float | None = None,
    policy: str = "lru",
    sizes: dict[str, float] | None = None,
    host: type[FakeHost] = FakeHost,
    **limits: Any,
) -> House:
    """A host with room for two of the servers a to d, unless it is told otherwise. Loads are expected to take 10 s."""
    known = sizes or dict.fromkeys("abcd", 4.0)
    specs = [ServerSpec(name, mb, asleep_mb=asleep_mb, load_s=10.0) for name, mb in known.items()]
    made = host(specs, memory_mb)
    return House(
        Residency(made, memory_mb=memory_mb, servers=specs, policy=policy, limits=ResidencyLimits(**limits), clock=made.clock), made
    )


async def turn(times: int = 20) -> None:
    """Let everybody who can go on do so."""
    for _ in range(times):
        await asyncio.sleep(0)
