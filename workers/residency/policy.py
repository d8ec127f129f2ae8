"""Which servers make room for the one that is needed. Pure; a policy neither logs, waits nor calls.

``lru``: what was unused longest goes (SN40L's runtime for compositions of experts, Prabhakar et al. 2024).
``belady``: for a known plan, what is needed farthest in the future goes (Belady 1966; Read-ME, Cai et al. 2024: routes that are
known before anything runs make the plan). For servers of one size that gives the fewest loads there can be; for several
sizes it is a good heuristic, and the best choice is NP-hard (Folwarczný and Sgall 2015).
``cost``: what is least expected to be missed goes: load time × probability of reuse, as a knapsack (CoServe evicts by
probability of use rather than by recency); of what a plan names, load time ÷ the uses until its own, and only when the rest
is not enough.

Asleep is cheaper than gone: a server is put to sleep instead of stopped where that frees enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from workers.residency.knapsack import Option, cheapest_cover
from workers.residency.servers import ROUNDING_MB, Action, Eviction, NoRoom, Resident, Room, total_mb


class EvictionPolicy(Protocol):
    """How to choose among servers that may go."""

    @property
    def name(self) -> str: ...

    @property
    def foresees(self) -> bool:
        """Whether it is made for a plan, so that a simulator may show it the future."""
        ...

    @property
    def weighs_reuse(self) -> bool:
        """Whether it looks at ``Resident.reuse_probability``."""
        ...

    def choose(self, evictable: Sequence[Resident], shortfall_mb: float) -> tuple[Eviction, ...]:
        """Evictions that free at least *shortfall_mb*, each server at most once; stopping all of *evictable* would."""
        ...


def make_room(server_id: str, memory_mb: float, residents: Iterable[Resident], host_mb: float, policy: EvictionPolicy) -> Room | NoRoom:
    """What has to go so that server *server_id* can hold *memory_mb* beside the others on a host of *host_mb*.

    What *server_id* itself holds among *residents* (asleep) is reused. Pinned and busy servers never go.
    """
    others = [resident for resident in residents if resident.id != server_id]
    shortfall_mb = total_mb([memory_mb, -host_mb, *(resident.memory_mb for resident in others)])
    if shortfall_mb <= ROUNDING_MB:
        return Room()
    evictable = [resident for resident in others if not resident.pinned and not resident.busy]
    if total_mb(resident.memory_mb for resident in evictable) < shortfall_mb - ROUNDING_MB:
        pinned = tuple((resident.id, resident.memory_mb) for resident in others if resident.pinned)
        busy = tuple((resident.id, resident.memory_mb) for resident in others if resident.busy and not resident.pinned)
        return NoRoom(server_id, memory_mb, host_mb, pinned, busy)
    return Room(policy.choose(evictable, shortfall_mb))


def next_uses(plan: Iterable[str]) -> dict[str, float]:
    """Server id to the place of its first use in *plan*, the ids still to come, soonest first."""
    places: dict[str, float] = {}
    for place, server_id in enumerate(plan):
        places.setdefault(server_id, float(place))
    return places


class Lru:
    """Least recently used first."""

    name = "lru"
    foresees = False
    weighs_reuse = False

    def choose(self, evictable: Sequence[Resident], shortfall_mb: float) -> tuple[Eviction, ...]:
        return _in_order(sorted(evictable, key=lambda resident: (resident.last_use, resident.id)), shortfall_mb)


class Belady:
    """Needed farthest in the future first; those that the plan does not name before all, least recently used first."""

    name = "belady"
    foresees = True
    weighs_reuse = False

    def choose(self, evictable: Sequence[Resident], shortfall_mb: float) -> tuple[Eviction, ...]:
        order = sorted(evictable, key=lambda resident: (-resident.next_use, resident.last_use, resident.id))
        return _in_order(order, shortfall_mb)


class Cost:
    """The smallest expected loss that frees enough.

    Stopping loses load time × probability of reuse; sleeping loses the time to fall asleep, surely, and the time to wake ×
    the same probability.

    A server that the plan names is sure to be needed, and goes only when all others together are not enough: how much the
    others were used was often the plan's own doing. Its loss counts for each use until its own, since that is how long the
    memory serves others: of equal servers the one that is needed last goes, as with ``Belady``.
    """

    name = "cost"
    foresees = False
    weighs_reuse = True

    def choose(self, evictable: Sequence[Resident], shortfall_mb: float) -> tuple[Eviction, ...]:
        order = sorted(evictable, key=lambda resident: (-resident.next_use, resident.last_use, resident.id))
        planned = [resident for resident in order if math.isfinite(resident.next_use)]
        others = [resident for resident in order if not math.isfinite(resident.next_use)]
        missing_mb = total_mb([shortfall_mb, *(-resident.memory_mb for resident in others)])
        # Half a rounding more than is missing: otherwise the others could end up short by the sum of two roundings.
        first = _cheapest(planned, missing_mb + ROUNDING_MB / 2) if missing_mb > ROUNDING_MB else ()
        rest_mb = total_mb([shortfall_mb, *(-eviction.freed_mb for eviction in first)])
        return (*_cheapest(others, rest_mb), *first)


def _cheapest(order: Sequence[Resident], shortfall_mb: float) -> tuple[Eviction, ...]:
    ways = [_ways(resident) for resident in order]
    chosen = cheapest_cover([[option for _, option in found] for found in ways], shortfall_mb)
    return tuple(Eviction(order[i].id, ways[i][chosen[i]][0], ways[i][chosen[i]][1].freed) for i in range(len(order)) if i in chosen)


def _ways(resident: Resident) -> list[tuple[Action, Option]]:
    probability, uses_until = resident.reuse_probability, 1.0
    if math.isfinite(resident.next_use):
        probability, uses_until = 1.0, 1.0 + resident.next_use
    ways = [(Action.STOP, Option(resident.memory_mb, probability * resident.load_s / uses_until))]
    if resident.frees_asleep_mb > 0:
        loss = (resident.sleep_s + probability * resident.wake_s) / uses_until
        ways.append((Action.SLEEP, Option(resident.frees_asleep_mb, loss)))
    return ways


def _in_order(order: Sequence[Resident], shortfall_mb: float) -> tuple[Eviction, ...]:
    """The shortest beginning of *order* that frees enough, less what turns out needless, softened to sleep where that does.

    1. Take servers in order until stopping them frees enough.
    2. From the last, the one worth most, back to the first: keep it whole if the others free enough without it.
    3. In the same order: put it to sleep if the others, as they stand, still free enough.
    """
    freed: dict[str, float] = {}
    for resident in order:
        freed[resident.id] = resident.memory_mb
        if _enough(freed, shortfall_mb):
            break
    taken = [resident for resident in order if resident.id in freed]
    for resident in reversed(taken):
        whole = freed.pop(resident.id)
        if not _enough(freed, shortfall_mb):
            freed[resident.id] = whole
    actions = dict.fromkeys(freed, Action.STOP)
    for resident in reversed(taken):
        if resident.id not in freed or resident.frees_asleep_mb <= 0:
            continue
        softened = {**freed, resident.id: resident.frees_asleep_mb}
        if _enough(softened, shortfall_mb):
            freed, actions[resident.id] = softened, Action.SLEEP
    return tuple(Eviction(resident.id, actions[resident.id], freed[resident.id]) for resident in taken if resident.id in freed)


def _enough(freed: Mapping[str, float], shortfall_mb: float) -> bool:
    return total_mb(freed.values()) >= shortfall_mb - ROUNDING_MB


POLICIES: Mapping[str, EvictionPolicy] = {policy.name: policy for policy in (Lru(), Belady(), Cost())}
"""The policies by name."""


def policy_named(name: str) -> EvictionPolicy:
    """The policy *name*. Raises ``InvalidRequest`` that names the known ones."""
    if name not in POLICIES:
        hint = did_you_mean(name, tuple(POLICIES), always_list=True)
        raise InvalidRequest(f"unknown residency policy {name!r}; {hint}", param="policy")
    return POLICIES[name]
