"""What happens next on one host, and its effects: the rules are ``admission``'s and the policy's, the changes the host's."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from domain.deadline import Clock
from domain.errors import ExpertError, ExpertUnavailable
from workers.residency.admission import Closing, Demand, Placement, place
from workers.residency.host import Changes, Counts, load_failed
from workers.residency.limits import ResidencyLimits
from workers.residency.measures import UsageShares
from workers.residency.policy import EvictionPolicy
from workers.residency.servers import ROUNDING_MB, Action, Resident, total_mb
from workers.residency.state import COMING_UP, Progress, Server, ServerState, Stage

log = logging.getLogger(__name__)


class Scheduler:
    """The servers of one host. ``decide`` is called after every change; it never waits."""

    def __init__(
        self, changes: Changes, *, memory_mb: float, policy: EvictionPolicy, limits: ResidencyLimits, clock: Clock, counts: Counts
    ) -> None:
        self.servers: dict[str, Server] = {}
        self.shares = UsageShares()
        self.next_uses: dict[str, float] = {}
        """Server id to its place in the plan."""
        self.tickets = itertools.count(1)
        """Order of arrival and of use."""
        self.decided = asyncio.Event()
        """Set, and replaced, after every decision."""
        self._changes = changes
        self._memory_mb = memory_mb
        self._policy = policy
        self._limits = limits
        self._clock = clock
        self._counts = counts
        self._closing: Closing | None = None
        self._queue: list[Demand] = []
        self._cleared: frozenset[str] = frozenset()
        self._ended = False

    def decide(self) -> None:
        """Decide what happens now, and begin it."""
        if self._ended:
            return
        for server in self.servers.values():
            if server.rests and server.trouble is not None:
                self.turn_away(server, partial(load_failed, server.id, server.trouble))
        self._queue = self._demands()
        placement = Placement()
        if self._queue:
            placement = place(self._queue, self._residents(), self._memory_mb, self._policy, self._closing)
        self._closing, self._cleared = placement.closing, frozenset(placement.cleared)
        for server_id in placement.granted:
            self._let_all_in(self.servers[server_id])
        for no_room in placement.refused:
            self.turn_away(self.servers[no_room.server_id], partial(ExpertUnavailable, no_room.message))
        for server_id in placement.dropped:
            self.servers[server_id].wanted = False
        for eviction in placement.evictions:
            self._take_down(self.servers[eviction.server_id], eviction.action)
        for server_id in placement.cleared:
            self._bring_up(self.servers[server_id])
        for server in self.servers.values():
            if server.asked is not None:
                self._take_down_if_idle(server, server.asked)
        self._tell()

    async def end(self) -> None:
        """Decide nothing any more, turn away who waits and cancel what is under way."""
        self._ended = True
        for server in self.servers.values():
            self.turn_away(server, partial(ExpertUnavailable, f"server {server.id!r} cannot be used: its host is shutting down"))
        tasks = [server.task for server in self.servers.values() if server.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- who gets in ---

    def is_open(self, server: Server) -> bool:
        """Whether a new request may go straight in."""
        closed = self._closing is not None and server.id in self._closing.server_ids
        return server.state is ServerState.AWAKE and not server.waiters and not closed and server.asked is None

    def let_in(self, server: Server, num: int = 1) -> None:
        server.num_holders += num
        self._counts.num_uses += num
        self.touch(server)

    def touch(self, server: Server) -> None:
        """It is used now."""
        server.last_use, server.used_at = next(self.tickets), self._clock()

    def turn_away(self, server: Server, error: Callable[[], ExpertError]) -> None:
        """Fail every request that waits for *server*, each with an error of its own."""
        while server.waiters:
            server.waiters.popleft().fail(error())

    def stop(self, server: Server) -> None:
        """Of one that nobody uses or waits for."""
        self._take_down(server, Action.STOP)

    def is_free(self, memory_mb: float, *, beside: Server) -> bool:
        """Whether *memory_mb* is free at this moment, apart from what *beside* holds itself."""
        held = (server.held_mb for server in self.servers.values() if server is not beside)
        return total_mb([memory_mb, *held]) <= self._memory_mb + ROUNDING_MB

    def progress(self, server: Server) -> Progress:
        """How far the wait for *server* is."""
        places = [demand.server_id for demand in self._queue]
        ahead = places.index(server.id) if server.id in places else 0
        elapsed_s = self._clock() - server.since if server.state in COMING_UP else 0.0
        expected = server.times.wake if server.state in {ServerState.ASLEEP, ServerState.WAKING} else server.times.load
        return Progress(server.id, self._stage(server), ahead, elapsed_s, expected.seconds)

    def _let_all_in(self, server: Server) -> None:
        self.let_in(server, len(server.waiters))
        while server.waiters:
            server.waiters.popleft().grant()

    def _stage(self, server: Server) -> Stage:
        match server.state:
            case ServerState.LOADING:
                return Stage.LOADING
            case ServerState.WAKING:
                return Stage.WAKING
            case _:
                return Stage.MAKING_ROOM if server.id in self._cleared else Stage.QUEUED

    def _tell(self) -> None:
        for number, demand in enumerate(self._queue):
            self._tell_waiters(self.servers[demand.server_id], number)
        for server in self.servers.values():
            if server.task is not None:
                self._tell_waiters(server, 0)
        self.decided.set()
        self.decided = asyncio.Event()

    def _tell_waiters(self, server: Server, num_ahead: int) -> None:
        news = (self._stage(server), num_ahead)
        if news != server.told:
            server.told = news
            for waiter in server.waiters:
                waiter.stirred.set()

    # --- the rules' input ---

    def _demands(self) -> list[Demand]:
        """Servers that are wanted and not on their way, by their oldest request; prefetches last."""
        waited = [s for s in self.servers.values() if (s.waiters or s.wanted) and not (s.task or s.asked or s.rests)]
        waited.sort(key=lambda server: server.waiters[0].ticket if server.waiters else math.inf)
        return [
            Demand(
                server.id,
                server.spec.memory_mb,
                awake=server.state is ServerState.AWAKE,
                prefetch=not server.waiters,
                next_use=self.next_uses.get(server.id, math.inf),
            )
            for server in waited
        ]

    def _residents(self) -> dict[str, Resident]:
        now = self._clock()
        found = (
            server.resident(
                now=now,
                next_use=self.next_uses.get(server.id, math.inf),
                reuse_probability=self.shares.share(server.id),
                nearly_done=self._limits.nearly_done,
            )
            for server in self.servers.values()
        )
        return {resident.id: resident for resident in found if resident is not None}

    # --- effects ---

    def _bring_up(self, server: Server) -> None:
        if server.state is ServerState.STUCK:
            self._take_down(server, Action.STOP)
        elif self.is_free(server.spec.memory_mb, beside=server):
            if server.state is ServerState.ASLEEP:
                self._begin(server, ServerState.WAKING, self._changes.wake)
            else:
                self._begin(server, ServerState.LOADING, self._changes.load)

    def _take_down_if_idle(self, server: Server, action: Action) -> None:
        if server.state is ServerState.LOADING:
            idle = not server.waiters
        else:
            can_go = server.state in {ServerState.AWAKE, ServerState.STUCK} or (
                server.state is ServerState.ASLEEP and action is Action.STOP
            )
            idle = can_go and not server.num_holders
        if idle:
            self._take_down(server, action if server.state is ServerState.AWAKE else Action.STOP)

    def _take_down(self, server: Server, action: Action) -> None:
        server.wanted = False
        if server.state is ServerState.LOADING and server.task is not None:
            server.given_up = True
            server.enter(ServerState.STOPPING, self._clock())
            server.task.cancel()
            self._counts.num_given_up += 1
        elif action is Action.SLEEP:
            self._begin(server, ServerState.FALLING_ASLEEP, self._changes.sleep)
        else:
            self._begin(server, ServerState.STOPPING, self._changes.stop)

    def _begin(self, server: Server, state: ServerState, change: Callable[[Server], Coroutine[Any, Any, ServerState]]) -> None:
        server.enter(state, self._clock())
        server.rests = False
        server.task = asyncio.create_task(change(server), name=f"{server.id}: {state}")
        # Not at the end of the coroutine: one that is cancelled before it has begun never gets there.
        server.task.add_done_callback(partial(self._arrived, server))

    def _arrived(self, server: Server, task: asyncio.Task[ServerState]) -> None:
        """What a change led to."""
        given_up, server.given_up = server.given_up, False
        server.task = None
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or (error is not None and given_up):
            server.enter(ServerState.GONE, self._clock())
        elif error is not None:
            self._failed(server, error)
        else:  # also a load that was given up, and was ready in the same moment: whoever needs its memory evicts it
            server.trouble = None
            server.enter(task.result(), self._clock())
            if server.state is ServerState.AWAKE:
                server.wanted = False
                self.touch(server)
                self._let_all_in(server)
        self.decide()

    def _failed(self, server: Server, error: BaseException) -> None:
        bug = None if isinstance(error, ExpertError) else error
        match server.state:
            case ServerState.LOADING:
                log.warning("server %r could not be loaded: %s", server.id, error, exc_info=bug)
                self._counts.num_failed += 1
                server.wanted = False
                server.enter(ServerState.GONE, self._clock())
                self.turn_away(server, partial(load_failed, server.id, error))
            case ServerState.WAKING if not self._ended:
                log.warning("server %r does not wake, and is stopped to be loaded anew: %s", server.id, error, exc_info=bug)
                self._begin(server, ServerState.STOPPING, self._changes.stop)
            case _:
                log.error("server %r could not be stopped: %s", server.id, error, exc_info=bug)
                server.asked, server.trouble, server.rests = None, error, True
                server.enter(ServerState.STUCK, self._clock())
                asyncio.get_running_loop().call_later(self._limits.stuck_retry_s, self._try_again, server)

    def _try_again(self, server: Server) -> None:
        server.rests = False
        self.decide()
