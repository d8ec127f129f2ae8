"""The residencies of one host: one for the processors' memory, one for each set of GPUs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from domain.errors import ExpertUnavailable
from workers.managed.placement import PlacedServer
from workers.residency.host import ServerHost
from workers.residency.limits import ResidencyLimits
from workers.residency.manager import Residency
from workers.residency.snapshot import ResidencySnapshot

log = logging.getLogger(__name__)


class Pools:
    """Which residency manages which server. A pool comes with its first server."""

    def __init__(self, host: ServerHost, *, policy: str, limits: ResidencyLimits | None = None) -> None:
        self._host = host
        self._policy = policy
        self._limits = limits
        self._residencies: dict[str, Residency] = {}
        self._pool_of: dict[str, str] = {}

    @property
    def server_ids(self) -> tuple[str, ...]:
        """All that are declared."""
        return tuple(self._pool_of)

    def pool_of(self, server_id: str) -> str | None:
        """The pool that the server is declared in; None when it is not."""
        return self._pool_of.get(server_id)

    def of(self, server_id: str) -> Residency:
        """The residency that manages the server. Raises ``ExpertUnavailable``."""
        pool = self._pool_of.get(server_id)
        if pool is None:
            raise ExpertUnavailable(f"server {server_id!r} cannot be used: it is not declared (any more)")
        return self._residencies[pool]

    def declare(self, server: PlacedServer) -> None:
        """Make it known, or how it will be from its next load on; it must not be known in another pool."""
        if server.pool not in self._residencies:
            self._residencies[server.pool] = Residency(self._host, memory_mb=server.pool_mb, policy=self._policy, limits=self._limits)
        self._pool_of[server.id] = server.pool
        self._residencies[server.pool].declare(server.spec)

    def forget(self, server_id: str) -> None:
        """Raises ``Conflict`` while it holds memory or somebody waits for it."""
        self.of(server_id).forget(server_id)
        del self._pool_of[server_id]

    def lost(self, server_id: str) -> None:
        """The server died by itself."""
        if server_id in self._pool_of:
            self.of(server_id).lost(server_id)

    def expect(self, server_ids: Sequence[str]) -> None:
        """The servers that will be needed, soonest first, wherever they are."""
        for pool, residency in self._residencies.items():
            residency.expect([server_id for server_id in server_ids if self._pool_of.get(server_id) == pool])

    def snapshots(self) -> dict[str, ResidencySnapshot]:
        """By pool."""
        return {pool: residency.snapshot() for pool, residency in self._residencies.items()}

    async def close(self) -> None:
        """Turn away who waits and cancel what is under way."""
        for outcome in await asyncio.gather(*(one.close() for one in self._residencies.values()), return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("a residency did not close", exc_info=outcome)
