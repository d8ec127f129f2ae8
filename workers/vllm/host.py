"""The supervisor as the residency wants a host: ``workers.residency.host.ServerHost``.

The two go together like this: the supervisor does not restart by itself (``restart=False``), since the residency may give the
memory of a crashed server to another, and reports servers that went down, so that those who need them wait for a load instead of
failing:

    supervisor = Supervisor(root, installation, restart=False, on_down=lambda status: residency.lost(status.server_id))
    residency = Residency(VllmHost(supervisor), …)
    for status in await supervisor.open():
        if not residency.adopt(status.server_id, asleep=status.state is ServerState.ASLEEP):
            await supervisor.stop(status.server_id)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from domain.errors import ConsiliumError, ExpertError, ExpertUnavailable
from workers.vllm.supervisor import Supervisor


class VllmHost:
    """Raises only ``ExpertError`` (and ``CancelledError``)."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def load(self, server_id: str) -> None:
        """Return when the server answers. When it fails or is cancelled it leaves nothing running and no memory held."""
        with _only_expert_errors():
            await self._supervisor.start(server_id)

    async def stop(self, server_id: str) -> None:
        """Return when its memory is free, also when it was not running. Raises when the server cannot be ended."""
        with _only_expert_errors():
            await self._supervisor.stop(server_id)

    async def sleep(self, server_id: str) -> None:
        """Return when it sleeps."""
        with _only_expert_errors():
            await self._supervisor.sleep(server_id)

    async def wake(self, server_id: str) -> None:
        """Return when it answers again."""
        with _only_expert_errors():
            await self._supervisor.wake(server_id)


@contextmanager
def _only_expert_errors() -> Iterator[None]:
    try:
        yield
    except ExpertError:
        raise
    except ConsiliumError as error:  # not declared, or in another state than the residency thought
        raise ExpertUnavailable(error.message) from error
