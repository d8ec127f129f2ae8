"""Servers that have to go are asked again and again, with pauses."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from tests.fakes.server_host import FakeHost
from workers.managed.limits import FleetLimits
from workers.managed.placement import HostMemory, Placement, Source, place
from workers.managed.pools import Pools
from workers.managed.retiring import Retirement


class StuckSupervisor:
    """Says that its server is outdated, whatever is done, until it is told otherwise."""

    def __init__(self) -> None:
        self.is_outdated = True
        self.num_looks = 0

    def declare(self, launch: Any) -> None:
        """Changes nothing."""

    def status(self, server_id: str) -> Any:
        self.num_looks += 1
        assert self.num_looks < 1000, "nobody else had a turn"
        return SimpleNamespace(is_outdated=self.is_outdated)


async def test_a_server_that_does_not_change_is_looked_at_again_after_a_pause_and_keeps_nobody_waiting() -> None:
    """The residency has stopped it already, so that there is nothing to wait for."""
    placement: Placement = place([Source("a", "/models/a", 512, memory_mb=80)], HostMemory(100), {})
    supervisor, pools = StuckSupervisor(), Pools(FakeHost([], 100), policy="lru")
    retirement = Retirement(supervisor, pools, lambda: placement, FleetLimits(retry_s=0.01))  # type: ignore[arg-type]
    retirement.declare_all()
    retirement.begin()
    (task,) = retirement._tasks.values()

    while supervisor.num_looks < 6:
        assert not task.done()
        await asyncio.sleep(0)
    supervisor.is_outdated = False
    async with asyncio.timeout(5):
        await task

    assert not retirement._tasks
    await pools.close()
