"""A picture of one host's servers, for display."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from workers.residency.host import Counts
from workers.residency.servers import total_mb
from workers.residency.state import Server, ServerState


@dataclass(frozen=True, slots=True)
class ServerPicture:
    """One server. Memory in MB, times in seconds."""

    id: str
    state: ServerState
    for_s: float
    """How long it has been in this state."""
    memory_mb: float
    """Declared."""
    held_mb: float
    """Held now."""
    pinned: bool
    num_holders: int
    """Requests that it serves."""
    num_waiting: int
    """Requests that wait for it."""
    idle_s: float | None
    """Since its last use; None while it serves, and when it never did."""
    load_s: float
    sleep_s: float
    wake_s: float
    num_loads: int
    trouble: str | None
    """Why it could not be stopped."""


@dataclass(frozen=True, slots=True)
class ResidencySnapshot:
    """One host."""

    memory_mb: float
    held_mb: float
    policy: str
    servers: tuple[ServerPicture, ...]
    """By id."""
    counts: Counts


def picture_of(servers: Iterable[Server], *, memory_mb: float, policy: str, counts: Counts, now: float) -> ResidencySnapshot:
    """*servers* as they are at *now*."""
    pictures = tuple(_picture(server, now) for server in sorted(servers, key=lambda server: server.id))
    return ResidencySnapshot(memory_mb, total_mb(picture.held_mb for picture in pictures), policy, pictures, replace(counts))


def _picture(server: Server, now: float) -> ServerPicture:
    times = server.times
    return ServerPicture(
        server.id,
        server.state,
        for_s=now - server.since,
        memory_mb=server.spec.memory_mb,
        held_mb=server.held_mb,
        pinned=server.pinned,
        num_holders=server.num_holders,
        num_waiting=len(server.waiters),
        idle_s=None if server.num_holders or server.used_at is None else now - server.used_at,
        load_s=times.load.seconds,
        sleep_s=times.sleep.seconds,
        wake_s=times.wake.seconds,
        num_loads=server.num_loads,
        trouble=None if server.trouble is None else str(server.trouble),
    )
