"""Replays which servers were needed, one after another, on a host of some size under some policy: what would it have cost?

The policies are the real ones, and every decision is the one that ``Residency`` takes when requests come one at a time: each
need is done before the next begins, nothing is prefetched. Requests that overlap gather behind one load, so that a live host
loads less often than the replay of its trace. ``belady`` sees the whole rest of the trace, the others see the past.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from workers.residency.measures import UsageShares
from workers.residency.policy import EvictionPolicy, make_room, policy_named
from workers.residency.servers import ROUNDING_MB, Action, Eviction, NoRoom, Resident, ServerSpec, total_mb


@dataclass(frozen=True, slots=True)
class Replay:
    """What one policy made of a trace on one host. ``lost_s`` is the time spent on loads, sleeps and wakes, as declared; stopping
    takes none."""

    policy: str
    host_mb: float
    num_uses: int
    num_hits: int = 0
    """Uses that found their server up. Loads, wakes and hits make up all uses, beside the loads of pinned servers."""
    num_loads: int = 0
    """With those of the pinned servers, which are loaded before the first use."""
    num_wakes: int = 0
    num_sleeps: int = 0
    num_stops: int = 0
    lost_s: float = 0.0

    @property
    def hit_rate(self) -> float:
        return self.num_hits / self.num_uses if self.num_uses else 0.0


class _Host:
    """The host while a trace is replayed on it."""

    def __init__(self, servers: Mapping[str, ServerSpec], host_mb: float, policy: EvictionPolicy, pinned: Collection[str]) -> None:
        self._servers = servers
        self._host_mb = host_mb
        self._policy = policy
        self._residents = {server_id: _awake(servers[server_id], pinned=True) for server_id in pinned}
        self._shares = UsageShares()
        self.counts = Counter(num_loads=len(self._residents))
        """By the name of the field of ``Replay``."""
        self.lost_s = math.fsum(servers[server_id].load_s for server_id in self._residents)

    def use(self, server_id: str, *, now: int, next_use: float) -> tuple[Eviction, ...]:
        """Need *server_id*; what had to go for it."""
        self._shares.record(server_id)
        spec, held = self._servers[server_id], self._residents.get(server_id)
        evictions: tuple[Eviction, ...] = ()
        if held is not None and held.memory_mb == spec.memory_mb:
            self.counts["num_hits"] += 1
        else:
            evictions = self._make_room(spec)
            self.counts["num_loads" if held is None else "num_wakes"] += 1
            self.lost_s += spec.load_s if held is None else spec.wake_s
        pinned = held is not None and held.pinned
        self._residents[server_id] = _awake(spec, last_use=now, next_use=next_use, pinned=pinned)
        return evictions

    def _make_room(self, spec: ServerSpec) -> tuple[Eviction, ...]:
        known: Iterable[Resident] = self._residents.values()
        if self._policy.weighs_reuse:
            known = [replace(resident, reuse_probability=self._shares.share(resident.id)) for resident in known]
        room = make_room(spec.id, spec.memory_mb, known, self._host_mb, self._policy)
        if isinstance(room, NoRoom):
            raise InvalidRequest(room.message, param="capacity_mb")
        for eviction in room.evictions:
            gone = self._residents.pop(eviction.server_id)
            if eviction.action is Action.SLEEP:
                left = gone.memory_mb - eviction.freed_mb
                again_s = max(0.0, gone.load_s - gone.wake_s)
                self._residents[gone.id] = replace(gone, memory_mb=left, asleep_mb=None, load_s=again_s)
                self.counts["num_sleeps"] += 1
                self.lost_s += gone.sleep_s
            else:
                self.counts["num_stops"] += 1
        return room.evictions


def replay(
    uses: Sequence[str],
    servers: Mapping[str, ServerSpec],
    *,
    host_mb: float,
    policy: str,
    pinned: Collection[str] = (),
    on_use: Callable[[str, tuple[Eviction, ...]], None] | None = None,
) -> Replay:
    """Replay *uses*, server ids in the order of their need, on a host of *host_mb* that is empty but for the *pinned* servers.

    *on_use* is told each use and what went for it. Raises ``InvalidRequest`` when a server is not among *servers* or cannot fit.
    """
    chosen = policy_named(policy)
    check_fits(uses, servers, host_mb=host_mb, pinned=pinned)
    host = _Host(servers, host_mb, chosen, dict.fromkeys(pinned))
    following = next_places(uses)
    for now, server_id in enumerate(uses):
        evictions = host.use(server_id, now=now, next_use=following[now] if chosen.foresees else math.inf)
        if on_use is not None:
            on_use(server_id, evictions)
    return Replay(policy, host_mb, len(uses), lost_s=host.lost_s, **host.counts)


def check_fits(uses: Sequence[str], servers: Mapping[str, ServerSpec], *, host_mb: float, pinned: Collection[str] = ()) -> None:
    """Raise ``InvalidRequest`` when a used or pinned server is unknown, or does not fit beside the pinned ones."""
    for server_id in sorted({*pinned, *uses} - servers.keys()):
        raise InvalidRequest(f"there is no server {server_id!r}; {did_you_mean(server_id, sorted(servers))}", param="servers")
    held = tuple((server_id, servers[server_id].memory_mb) for server_id in dict.fromkeys(pinned))
    pinned_mb = total_mb(mb for _, mb in held)
    if pinned_mb > host_mb + ROUNDING_MB:
        raise InvalidRequest(f"the pinned servers need {pinned_mb:.10g} MB and the host has {host_mb:.10g} MB", param="capacity_mb")
    largest = max(set(uses) - set(pinned), key=lambda server_id: (servers[server_id].memory_mb, server_id), default=None)
    if largest is not None:
        no_room = NoRoom(largest, servers[largest].memory_mb, host_mb, held)
        if no_room.for_good:
            raise InvalidRequest(no_room.message, param="capacity_mb")


def next_places(uses: Sequence[str]) -> list[float]:
    """For every place in *uses* the place where the same server is needed next; infinite when it is not."""
    places = [math.inf] * len(uses)
    seen: dict[str, int] = {}
    for place in range(len(uses) - 1, -1, -1):
        places[place] = seen.get(uses[place], math.inf)
        seen[uses[place]] = place
    return places


def _awake(spec: ServerSpec, *, last_use: float = -1, next_use: float = math.inf, pinned: bool = False) -> Resident:
    return Resident(
        spec.id, spec.memory_mb, asleep_mb=spec.asleep_mb, pinned=pinned, last_use=last_use, next_use=next_use,
        load_s=spec.load_s, sleep_s=spec.sleep_s, wake_s=spec.wake_s,
    )  # fmt: skip
