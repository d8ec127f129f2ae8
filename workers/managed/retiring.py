"""Brings declared servers in line with the placement: new ones are made known, outdated ones restarted, others stopped, when idle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from domain.deadline import Deadline
from domain.errors import ConsiliumError, ExpertTimeout
from workers.managed.limits import FleetLimits
from workers.managed.placement import PlacedServer, Placement
from workers.managed.pools import Pools
from workers.residency.servers import Action
from workers.vllm.supervisor import Supervisor

log = logging.getLogger(__name__)


class Retirement:
    """One task for each server that has to go; a server that has its place needs none."""

    def __init__(self, supervisor: Supervisor, pools: Pools, placement: Callable[[], Placement], limits: FleetLimits) -> None:
        self._supervisor = supervisor
        self._pools = pools
        self._placement = placement
        """As it is now; it changes while a server is waited for."""
        self._limits = limits
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def declare_all(self) -> None:
        """Make every placed server known, but for those that have to leave another pool first."""
        for server in self._placement().servers.values():
            if self._pools.pool_of(server.id) in (None, server.pool):
                self._declare(server)

    def begin(self) -> None:
        """Begin what the placement asks for. Returns at once."""
        for server_id in self._pools.server_ids:
            if self._is_in_place(server_id):
                self._settle(self._placement().servers[server_id])
            elif server_id not in self._tasks:
                task = self._tasks[server_id] = asyncio.create_task(self._retire(server_id), name=f"retire vllm server {server_id}")
                task.add_done_callback(partial(self._ended, server_id))

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _is_in_place(self, server_id: str) -> bool:
        server = self._placement().servers.get(server_id)
        return server is not None and server.pool == self._pools.pool_of(server_id) and not self._supervisor.status(server_id).is_outdated

    def _is_over(self, server_id: str) -> bool:
        return self._pools.pool_of(server_id) is None or self._is_in_place(server_id)

    def _declare(self, server: PlacedServer) -> None:
        self._supervisor.declare(server.launch)
        self._pools.declare(server)

    def _settle(self, server: PlacedServer) -> None:
        """Pinned or not, as its card says."""
        residency = self._pools.of(server.id)
        if server.pinned:
            residency.pin(server.id)
            residency.prefetch(server.id)
        else:
            residency.unpin(server.id)

    async def _retire(self, server_id: str) -> None:
        """Stop it as soon as it is idle. Of one that is declared still, the next request starts it as it is to be now.

        A round that changes nothing, for whatever reason, is followed by a pause: it need not have waited for anything itself.
        """
        while not self._is_over(server_id):
            residency = self._pools.of(server_id)
            residency.unpin(server_id)
            try:
                await residency.evict(server_id, Action.STOP, Deadline.after(self._limits.retire_timeout_s))
                server = self._placement().servers.get(server_id)
                if server is None or server.pool != self._pools.pool_of(server_id):
                    self._pools.forget(server_id)
                    self._supervisor.forget(server_id)
                    if server is not None:
                        self._declare(server)
            except ExpertTimeout as error:
                log.warning("a server that has to go still serves: %s", error.message)
            except ConsiliumError as error:  # somebody else stops it, or it cannot be killed yet
                log.info("server %r cannot go yet: %s", server_id, error.message)
            if not self._is_over(server_id):
                await asyncio.sleep(self._limits.retry_s)
        if (server := self._placement().servers.get(server_id)) is not None:
            self._settle(server)

    def _ended(self, server_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(server_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("server %r was not retired", server_id, exc_info=error)
