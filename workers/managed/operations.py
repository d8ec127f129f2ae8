"""What operators do to servers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from domain.deadline import Deadline
from domain.errors import Conflict, InvalidRequest, NotFound
from domain.nearest import did_you_mean
from workers.managed.limits import FleetLimits
from workers.managed.placement import Placement
from workers.managed.pools import Pools
from workers.residency.servers import Action
from workers.residency.snapshot import ServerPicture
from workers.residency.state import ServerState as Residence
from workers.vllm.supervisor import Supervisor


class Operations:
    """*name* is a server's id, or that of an expert on it. Methods raise ``NotFound`` for any other."""

    def __init__(
        self,
        supervisor: Supervisor,
        pools: Pools,
        placement: Callable[[], Placement],
        hold: Callable[[str, Deadline], AbstractAsyncContextManager[None]],
        limits: FleetLimits,
    ) -> None:
        self._supervisor = supervisor
        self._pools = pools
        self._placement = placement
        self._hold = hold
        self._limits = limits

    async def start(self, name: str, deadline: Deadline) -> str:
        """Return its id when it is up. Raises ``ExpertError``."""
        server_id = self.server_named(name)
        async with self._hold(server_id, deadline):
            return server_id

    async def stop(self, name: str, deadline: Deadline) -> str:
        """Return its id when it is gone; it serves what it serves to its end. Raises what ``Residency.evict`` raises."""
        return await self._evict(name, Action.STOP, deadline)

    async def sleep(self, name: str, deadline: Deadline) -> str:
        """The same when it sleeps. Raises ``Conflict`` when it does not run."""
        server_id = self.server_named(name)
        if (state := self._picture(server_id).state) is Residence.GONE:
            raise Conflict(f"server {server_id!r} is {state} and cannot be put to sleep: start it first")
        return await self._evict(name, Action.SLEEP, deadline)

    async def wake(self, name: str, deadline: Deadline) -> str:
        """Return its id when it answers again. Raises ``Conflict`` when it does not run."""
        server_id = self.server_named(name)
        if (state := self._picture(server_id).state) is Residence.GONE:
            raise Conflict(f"server {server_id!r} is {state} and cannot be woken: start it instead")
        return await self.start(server_id, deadline)

    async def logs(self, name: str, num_lines: int) -> list[str]:
        """The last lines that it wrote, oldest first."""
        if not 1 <= num_lines <= self._limits.max_log_lines:
            raise InvalidRequest(f"lines is {num_lines}, it must be from 1 to {self._limits.max_log_lines}", param="lines")
        return await self._supervisor.logs(self.server_named(name), num_lines)

    def server_named(self, name: str) -> str:
        """The id of the server *name*, or of the one that the expert *name* lives on. Raises ``NotFound``."""
        if self._pools.pool_of(name) is not None:
            return name
        if (seat := self._placement().seats.get(name)) is not None:
            return seat.server_id
        if (why := self._placement().obstacles.get(name)) is not None:
            raise NotFound(f"the expert {name!r} has no server: {why}", param="server")
        hint = did_you_mean(name, sorted(self._pools.server_ids), always_list=True)
        raise NotFound(f"there is no managed server {name!r}; {hint}", param="server")

    async def _evict(self, name: str, action: Action, deadline: Deadline) -> str:
        server_id = self.server_named(name)
        await self._pools.of(server_id).evict(server_id, action, deadline)
        return server_id

    def _picture(self, server_id: str) -> ServerPicture:
        servers = self._pools.of(server_id).snapshot().servers
        return next(server for server in servers if server.id == server_id)
