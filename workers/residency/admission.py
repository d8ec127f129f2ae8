"""Whose turn it is: which waiting requests are let in, which servers come up next and which must go for that. Pure.

Requests for one server queue together, behind the oldest of them (CoServe). The queue of servers is first come, first served:

1. The requests of a server that is up are let in, all of them, unless it was closed for an older request.
2. A server that fits once idle ones are gone comes up; those go.
3. The first that does not fit *blocks*: the servers that have to go for it are *closed*, which means that they finish what
   they serve and take nothing new. So a stream of requests for servers that are up cannot starve one that waits. The set
   stays closed until it is idle, since another choice at every turn could go on for ever.
4. Whoever stands behind it comes up only if that delays the one in front by nothing: in memory that is left once the one in
   front is up.
5. What is only prefetched stands last, closes nobody, and pushes nobody out that the plan needs sooner.

There is no thrashing either: a server that came up serves its whole queue before it can go, and while it is down its requests
gather. The more it costs to change servers, the more requests each change serves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from workers.residency.policy import EvictionPolicy, make_room
from workers.residency.servers import ROUNDING_MB, Action, Eviction, NoRoom, Resident, Room, total_mb


@dataclass(frozen=True, slots=True)
class Demand:
    """A server that is wanted."""

    server_id: str
    memory_mb: float
    awake: bool = False
    """It is up already; its requests wait because it was closed."""
    prefetch: bool = False
    """Nobody waits for it yet."""
    next_use: float = math.inf
    """Place in the plan, as in ``Resident``."""


@dataclass(frozen=True, slots=True)
class Closing:
    """Servers that take nothing new, so that *for_server* can come up when they are idle."""

    for_server: str
    server_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Placement:
    """What happens now."""

    granted: tuple[str, ...] = ()
    """Servers whose waiting requests are all let in."""
    cleared: tuple[str, ...] = ()
    """Servers that come up as soon as the memory is free."""
    evictions: tuple[Eviction, ...] = ()
    refused: tuple[NoRoom, ...] = ()
    """Servers that can never fit."""
    dropped: tuple[str, ...] = ()
    """Prefetches that there is no room for."""
    closing: Closing | None = None


@dataclass(slots=True)
class _View:
    """The host as it will be when everything decided so far is done."""

    residents: dict[str, Resident]
    host_mb: float
    reserved_mb: float = 0.0
    """Kept free for the one that blocks, beyond what those that are closed for it will free."""
    granted: list[str] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    evictions: list[Eviction] = field(default_factory=list)
    refused: list[NoRoom] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    closing: Closing | None = None

    def is_closed(self, server_id: str) -> bool:
        """Whether it goes, or has to, for somebody older."""
        evicted = any(eviction.server_id == server_id for eviction in self.evictions)
        return evicted or (self.closing is not None and server_id in self.closing.server_ids)

    def let_in(self, server_id: str) -> None:
        self.granted.append(server_id)
        self.residents[server_id] = replace(self.residents[server_id], busy=True, serving=True, speculative=False)

    def bring_up(self, demand: Demand, evictions: Iterable[Eviction]) -> None:
        for eviction in evictions:
            self.evictions.append(eviction)
            gone = self.residents.pop(eviction.server_id)
            if eviction.action is Action.SLEEP:
                left = gone.memory_mb - eviction.freed_mb
                self.residents[gone.id] = replace(gone, memory_mb=left, asleep_mb=None, busy=True)
        self.cleared.append(demand.server_id)
        self.residents[demand.server_id] = Resident(demand.server_id, demand.memory_mb, busy=True)

    def close_for(self, demand: Demand, server_ids: frozenset[str]) -> None:
        self.closing = Closing(demand.server_id, server_ids)
        own = self.residents.get(demand.server_id)
        freed = [self.residents[server_id].memory_mb for server_id in server_ids]
        self.reserved_mb = max(0.0, total_mb([demand.memory_mb, *(-mb for mb in freed), -(own.memory_mb if own else 0.0)]))
        for server_id in server_ids:
            self.residents[server_id] = replace(self.residents[server_id], busy=True, serving=False)


def place(
    queue: Sequence[Demand], residents: Mapping[str, Resident], host_mb: float, policy: EvictionPolicy, closing: Closing | None = None
) -> Placement:
    """Decide for all of *queue*, oldest first, prefetches last.

    *residents* are the servers that hold memory, with what they will hold when what is under way is done; *closing* is what
    the last decision closed.
    """
    view = _View(dict(residents), host_mb)
    for demand in queue:
        if demand.awake:
            if not view.is_closed(demand.server_id):
                view.let_in(demand.server_id)
            continue
        if demand.prefetch:
            _prefetch(view, demand, policy)
            continue
        match make_room(demand.server_id, demand.memory_mb, view.residents.values(), host_mb - view.reserved_mb, policy):
            case Room(evictions):
                view.bring_up(demand, evictions)
            case NoRoom() as no_room:
                no_room = replace(no_room, host_mb=host_mb)
                if no_room.for_good:
                    view.refused.append(no_room)
                elif view.closing is None:
                    view.close_for(demand, _to_close(view, demand, policy, closing))
    return Placement(
        tuple(view.granted), tuple(view.cleared), tuple(view.evictions), tuple(view.refused), tuple(view.dropped), view.closing
    )


def _prefetch(view: _View, demand: Demand, policy: EvictionPolicy) -> None:
    def may_go(resident: Resident) -> bool:
        sooner = math.isfinite(resident.next_use) and resident.next_use <= demand.next_use
        return not sooner and not resident.speculative

    residents = [resident if may_go(resident) else replace(resident, busy=True) for resident in view.residents.values()]
    room = make_room(demand.server_id, demand.memory_mb, residents, view.host_mb, policy)
    if isinstance(room, Room) and view.closing is None:
        view.bring_up(demand, room.evictions)
    else:
        view.dropped.append(demand.server_id)


def _to_close(view: _View, demand: Demand, policy: EvictionPolicy, before: Closing | None) -> frozenset[str]:
    """What has to become idle for *demand*: what was closed for it before as long as that does; nothing when even all of those
    that serve would not do, because others are on their way up or down."""
    open_ones = {
        server_id: replace(resident, busy=False) if resident.serving else resident for server_id, resident in view.residents.items()
    }
    if before is not None and before.for_server == demand.server_id:
        kept = [resident for server_id, resident in open_ones.items() if server_id in before.server_ids]
        others = [
            resident.memory_mb for server_id, resident in open_ones.items() if server_id not in {*before.server_ids, demand.server_id}
        ]
        fits = total_mb([demand.memory_mb, *others]) <= view.host_mb + ROUNDING_MB
        if fits and not any(resident.pinned or resident.busy for resident in kept):
            return frozenset(resident.id for resident in kept)
    room = make_room(demand.server_id, demand.memory_mb, open_ones.values(), view.host_mb, policy)
    return frozenset(eviction.server_id for eviction in room.evictions) if isinstance(room, Room) else frozenset()
