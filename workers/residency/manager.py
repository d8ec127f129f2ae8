"""The servers of one host within its memory, for those who need one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from domain.deadline import Clock, Deadline
from domain.errors import Conflict, ExpertOverloaded, ExpertTimeout, ExpertUnavailable, InvalidRequest, NotFound
from domain.nearest import did_you_mean
from workers.residency.host import Changes, Counts, ServerHost
from workers.residency.limits import ResidencyLimits
from workers.residency.measures import Times
from workers.residency.policy import next_uses, policy_named
from workers.residency.scheduler import Scheduler
from workers.residency.servers import Action, ServerSpec
from workers.residency.snapshot import ResidencySnapshot, picture_of
from workers.residency.state import COMING_UP, Progress, Server, ServerState, Waiter

OnProgress = Callable[[Progress], None]


class Residency:
    """Keeps servers loaded within the memory of one host, and lets requests in when theirs is up.

    Lives on one event loop; every method that is not awaited takes effect at once. ``admission`` says whose turn it is.
    A load whose requests have all gone away goes on, so that a client with little patience finds the server up when it tries
    again; when another server needs the memory it is given up, unless it is nearly done (``ResidencyLimits.nearly_done``).
    Methods that name a server which is not declared raise ``NotFound``, except ``hold``.
    """

    def __init__(
        self,
        host: ServerHost,
        *,
        memory_mb: float,
        servers: Iterable[ServerSpec] = (),
        policy: str = "lru",
        limits: ResidencyLimits | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.counts = Counts()
        self._memory_mb = memory_mb
        self._policy = policy_named(policy)
        self._limits = limits or ResidencyLimits()
        self._clock = clock
        changes = Changes(host, self._limits, clock, self.counts)
        self._scheduler = Scheduler(changes, memory_mb=memory_mb, policy=self._policy, limits=self._limits, clock=clock, counts=self.counts)
        self._servers = self._scheduler.servers
        self._closed = False
        for spec in servers:
            self.declare(spec)

    # --- what there is ---

    def declare(self, spec: ServerSpec) -> None:
        """Make *spec* known. Of a server that holds memory it counts from its next load on."""
        server = self._servers.get(spec.id)
        if server is None:
            self._servers[spec.id] = Server(spec, Times(spec))
        else:
            server.declare(spec)
            self._scheduler.decide()

    def forget(self, server_id: str) -> None:
        """Take the declaration back. Raises ``Conflict`` while the server holds memory or somebody waits for it."""
        server = self._known(server_id)
        if server.state is not ServerState.GONE or server.waiters:
            raise Conflict(f"server {server_id!r} is {server.state} and cannot be forgotten: stop it first")
        del self._servers[server_id]
        self._scheduler.shares.forget(server_id)

    def adopt(self, server_id: str, *, asleep: bool = False) -> bool:
        """Take a server as up, or asleep, that was found running. False when there is no memory for it: then it has to be ended."""
        server = self._known(server_id)
        if server.state is not ServerState.GONE:
            return True
        asleep_mb = server.spec.asleep_mb if asleep else None
        if not self._scheduler.is_free(server.spec.memory_mb if asleep_mb is None else asleep_mb, beside=server):
            return False
        server.enter(ServerState.AWAKE if asleep_mb is None else ServerState.ASLEEP, self._clock())
        self._scheduler.touch(server)
        self._scheduler.decide()
        return True

    def lost(self, server_id: str) -> None:
        """The server died by itself: it holds nothing any more, and the next request loads it again. One that is on its way up or
        down tells that itself, by failing."""
        server = self._known(server_id)
        if server.task is None and server.state is not ServerState.GONE:
            server.enter(ServerState.GONE, self._clock())
            self._scheduler.decide()

    def pin(self, server_id: str) -> None:
        """Never evict the server from now on. It is loaded when it is first needed, or prefetched."""
        self._known(server_id).pinned = True
        self._scheduler.decide()

    def unpin(self, server_id: str) -> None:
        """The server may be evicted again."""
        self._known(server_id).pinned = False
        self._scheduler.decide()

    def expect(self, plan: Iterable[str]) -> None:
        """The servers that will be needed, soonest first; replaces what was expected before. ``belady`` goes by it, ``cost``
        takes what it names as sure to be needed, and a prefetch pushes out nothing that it names sooner."""
        self._scheduler.next_uses = next_uses(plan)

    def snapshot(self) -> ResidencySnapshot:
        """How things stand, with the times measured so far and what was counted."""
        return picture_of(
            self._servers.values(), memory_mb=self._memory_mb, policy=self._policy.name, counts=self.counts, now=self._clock()
        )

    # --- who needs one ---

    @asynccontextmanager
    async def hold(self, server_id: str, deadline: Deadline, on_progress: OnProgress | None = None) -> AsyncIterator[None]:
        """Server *server_id* up and answering, for as long as the block lasts.

        *on_progress* is called from the waiting request, at first and whenever its stage changes. Never hold one server while
        waiting for another: two requests that do so can wait for each other until their deadlines. Raises ``ExpertOverloaded``
        when too many wait, ``ExpertTimeout`` when *deadline* comes first, ``ExpertUnavailable`` when the server is not declared
        or can never fit, and the kind of ``ExpertError`` that its load failed with.
        """
        server = self._servers.get(server_id)
        if server is None or self._closed:
            why = "its host is shutting down" if self._closed else "it is not declared (any more)"
            raise ExpertUnavailable(f"server {server_id!r} cannot be used: {why}")
        if deadline.expired:
            raise ExpertTimeout(f"no time was left to wait for server {server_id!r}", expert_at_fault=False)
        self._scheduler.shares.record(server_id)
        if self._scheduler.is_open(server):
            self.counts.num_hits += 1
            self._scheduler.let_in(server)
        else:
            await self._wait(server, deadline, on_progress)
        try:
            yield
        finally:
            server.num_holders -= 1
            self._scheduler.touch(server)
            self._scheduler.decide()

    def prefetch(self, server_id: str) -> bool:
        """Begin to load the server if that takes nothing from anybody: memory is free, or held by idle servers that the plan does
        not need sooner, and nobody waits for it. Whether it is up or comes up."""
        server = self._known(server_id)
        if server.state is ServerState.AWAKE:
            return True
        server.wanted = not self._closed and not server.rests
        self._scheduler.decide()
        return server.wanted or server.state in COMING_UP

    def release(self, server_id: str) -> None:
        """Stop the server now, so that a later load finds its memory free, if it is idle and nobody wants it. One that is pinned stays, and
        one that can sleep: what it keeps then is the policy's affair."""
        server = self._known(server_id)
        is_idle = server.state is ServerState.AWAKE and not (server.num_holders or server.waiters or server.wanted)
        if is_idle and not server.pinned and server.asked is None and server.spec.asleep_mb is None:
            self._scheduler.stop(server)

    async def evict(self, server_id: str, action: Action, deadline: Deadline) -> None:
        """Put the server to sleep or stop it as soon as it is idle; until then it takes no new requests.

        Raises ``Conflict`` when it is pinned or somebody else evicts it, ``InvalidRequest`` when it cannot sleep,
        ``ExpertTimeout`` when it is not done by *deadline*, and what ending it failed with.
        """
        server = self._known(server_id)
        if server.pinned or server.asked is not None:
            raise Conflict(f"server {server_id!r} is {'pinned: unpin it first' if server.pinned else 'being evicted already'}")
        if action is Action.SLEEP and server.spec.asleep_mb is None:
            raise InvalidRequest(f"server {server_id!r} cannot sleep: it declares no asleep_mb", param="action")
        reached = {ServerState.GONE} if action is Action.STOP else {ServerState.GONE, ServerState.ASLEEP}
        server.asked, server.trouble = action, None
        try:
            async with asyncio.timeout(deadline.remaining_s):
                self._scheduler.decide()
                while server.state not in reached:
                    if server.trouble is not None:
                        raise server.trouble
                    await self._scheduler.decided.wait()
        except TimeoutError as error:
            msg = f"server {server_id!r} is still {server.state} with {server.num_holders} requests, and could not be evicted in time"
            raise ExpertTimeout(msg, expert_at_fault=False) from error
        finally:
            server.asked = None
            self._scheduler.decide()

    async def close(self) -> None:
        """Turn away who waits and cancel what is under way. The servers are the host's to end."""
        self._closed = True
        await self._scheduler.end()

    async def _wait(self, server: Server, deadline: Deadline, on_progress: OnProgress | None) -> None:
        if sum(len(other.waiters) for other in self._servers.values()) >= self._limits.max_waiting:
            msg = f"{self._limits.max_waiting} requests wait for servers already; none more is taken, for {server.id!r} neither"
            raise ExpertOverloaded(msg, retry_after_s=max(1.0, server.times.load.seconds))
        waiter = Waiter(next(self._scheduler.tickets))
        server.waiters.append(waiter)
        started = self._clock()
        try:
            self._scheduler.decide()
            async with asyncio.timeout(deadline.remaining_s):
                while not waiter.granted:
                    if waiter.error is not None:
                        raise waiter.error
                    waiter.stirred.clear()
                    if on_progress is not None:
                        on_progress(self._scheduler.progress(server))
                    await waiter.stirred.wait()
        except BaseException as error:
            progress = self._scheduler.progress(server)
            if waiter.granted:  # in the same moment: give it back
                server.num_holders -= 1
            elif waiter in server.waiters:
                server.waiters.remove(waiter)
            self._scheduler.decide()
            if isinstance(error, TimeoutError):
                raise ExpertTimeout(f"the request's deadline came while it waited for server {progress}", expert_at_fault=False) from error
            raise
        finally:
            self.counts.waited_s += self._clock() - started

    def _known(self, server_id: str) -> Server:
        if server_id not in self._servers:
            raise NotFound(f"there is no server {server_id!r}; {did_you_mean(server_id, sorted(self._servers))}", param="server")
        return self._servers[server_id]
