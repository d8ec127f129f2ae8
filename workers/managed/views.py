"""What is told about the fleet. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workers.managed.placement import PlacedServer
from workers.residency.snapshot import ResidencySnapshot, ServerPicture
from workers.residency.state import ServerState
from workers.vllm.status import ServerStatus

_HOLD_MEMORY = frozenset(ServerState) - {ServerState.GONE}


@dataclass(frozen=True, slots=True)
class ServerView:
    """One managed server. Memory in MB, times in seconds."""

    status: ServerStatus
    picture: ServerPicture
    pool: str
    model: str
    expert_ids: tuple[str, ...]
    """Those that live on it; none when it is on its way out."""

    @property
    def id(self) -> str:
        return self.status.server_id


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool of memory and what was counted there since the start."""

    id: str
    snapshot: ResidencySnapshot
    resident: tuple[str, ...]
    """Servers that are loaded, asleep or on their way up or down."""


@dataclass(frozen=True, slots=True)
class FleetView:
    """All managed servers, and the experts that could not be given one."""

    servers: tuple[ServerView, ...]
    pools: tuple[PoolView, ...]
    obstacles: Mapping[str, str]
    """Expert id to the reason."""
    trouble: str | None
    """Why no server can be started at all; None when that is not so."""


def view_of_servers(
    placed: Mapping[str, PlacedServer], statuses: Mapping[str, ServerStatus], snapshots: Mapping[str, ResidencySnapshot]
) -> tuple[ServerView, ...]:
    """By id."""
    views = [
        ServerView(
            statuses[picture.id],
            picture,
            pool,
            placed[picture.id].launch.model if picture.id in placed else "",
            placed[picture.id].expert_ids if picture.id in placed else (),
        )
        for pool, snapshot in snapshots.items()
        for picture in snapshot.servers
        if picture.id in statuses
    ]
    return tuple(sorted(views, key=lambda view: view.id))


def view_of_pools(snapshots: Mapping[str, ResidencySnapshot]) -> tuple[PoolView, ...]:
    """By id."""
    return tuple(
        PoolView(pool, snapshot, tuple(server.id for server in snapshot.servers if server.state in _HOLD_MEMORY))
        for pool, snapshot in sorted(snapshots.items())
    )
