"""The managed servers as the batch engine sees them (``orchestrator.batch.ports.Fleet``)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from domain.deadline import Deadline
from orchestrator.batch.host import BatchExpert, Device, Host, Server
from workers.managed.limits import DEFAULT_CALL_S
from workers.managed.measurements import CallTimes
from workers.residency.state import ServerState

if TYPE_CHECKING:
    from workers.managed.fleet import Fleet
    from workers.residency.snapshot import ServerPicture

_LOADED = frozenset({ServerState.AWAKE, ServerState.LOADING, ServerState.WAKING})
_ASLEEP = frozenset({ServerState.ASLEEP, ServerState.FALLING_ASLEEP})


class BatchFleet:
    """A device for each pool of memory, one server at work on each: two on the same processors or GPUs would only share them. A
    server is loaded in its own pool, as its card says, and nowhere else."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    @property
    def trouble(self) -> str | None:
        return self._fleet.view().trouble

    def host(self, expert_ids: Sequence[str]) -> Host:
        """These experts as a plan sees them, and the devices as they are now. Experts that have no server, because they run elsewhere or
        because none can be started for them, need none here either: a call says what is wrong."""
        view = self._fleet.view()
        known = {server.id for server in view.servers}
        devices = tuple(
            Device(
                pool.id,
                pool.snapshot.memory_mb,
                resident=tuple(server.id for server in pool.snapshot.servers if server.id in known and server.state in _LOADED),
            )
            for pool in view.pools
        )
        servers = {
            server.id: Server(server.id, server.picture.memory_mb, _load_s(server.picture), frozenset({server.pool}))
            for server in view.servers
        }
        experts = {expert_id: self._expert(expert_id, servers) for expert_id in expert_ids}
        return Host(devices, servers, experts, self._fleet.pinned & servers.keys())

    def hold(self, server_id: str, deadline: Deadline) -> AbstractAsyncContextManager[None]:
        return self._fleet.hold(server_id, deadline)

    def release(self, server_id: str) -> None:
        self._fleet.release(server_id)

    def expect(self, server_ids: Sequence[str]) -> None:
        self._fleet.expect(server_ids)

    def measured(self, expert_id: str, *, call_s: float, aggregation: bool) -> None:
        self._fleet.measured(expert_id, call_s=call_s, aggregation=aggregation)

    def _expert(self, expert_id: str, servers: dict[str, Server]) -> BatchExpert:
        times = self._fleet.call_times.get(expert_id, CallTimes())
        seat = self._fleet.seat_of(expert_id)
        return BatchExpert(
            expert_id,
            DEFAULT_CALL_S if times.call_s is None else times.call_s,
            seat.server_id if seat is not None and seat.server_id in servers else None,
            times.aggregation_s,
        )


def _load_s(picture: ServerPicture) -> float:
    return picture.wake_s if picture.state in _ASLEEP else picture.load_s
