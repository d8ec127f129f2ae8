"""The host of managed servers: the supervisor as the residency wants it, which also tells when something was measured."""

from __future__ import annotations

from collections.abc import Callable

from workers.vllm.host import VllmHost
from workers.vllm.supervisor import Supervisor


class MeasuredHost(VllmHost):
    """*on_change* is called with a server's id when it came up, fell asleep or woke."""

    def __init__(self, supervisor: Supervisor, on_change: Callable[[str], None]) -> None:
        super().__init__(supervisor)
        self._on_change = on_change

    async def load(self, server_id: str) -> None:
        await super().load(server_id)
        self._on_change(server_id)

    async def sleep(self, server_id: str) -> None:
        await super().sleep(server_id)
        self._on_change(server_id)

    async def wake(self, server_id: str) -> None:
        await super().wake(server_id)
        self._on_change(server_id)
