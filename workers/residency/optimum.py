"""The fewest loads with which a trace of needs can be served, whatever the policy: exact for servers of one size, a bound otherwise.

Every need must be met on the spot: a server cannot be used without being loaded (no bypass). With several sizes the optimum is
NP-hard (Folwarczný and Sgall 2015), so that two bounds from below are taken, and the higher one stands:

- Shrink every server to the smallest. Whatever was possible still is, and for one size Belady's rule is optimal.
- A hit keeps its server in memory from one need to the next. Its size times the needs between must find room beside the
  servers that are needed then: hits are packed into that area, smallest first (PFOO-L of Berger et al. 2018, here without
  bypass).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from workers.residency.servers import ROUNDING_MB, ServerSpec, total_mb
from workers.residency.simulator import check_fits, next_places


@dataclass(frozen=True, slots=True)
class Optimum:
    """The fewest loads; when not *exact*, no policy needs fewer and perhaps none gets by with so few."""

    num_loads: int
    exact: bool


def optimum(uses: Sequence[str], servers: Mapping[str, ServerSpec], *, host_mb: float, pinned: Collection[str] = ()) -> Optimum:
    """The fewest loads for *uses* on a host of *host_mb*, those of the *pinned* servers included. Wakes are no loads.

    Raises ``InvalidRequest`` when a server is not among *servers* or cannot fit.
    """
    check_fits(uses, servers, host_mb=host_mb, pinned=pinned)
    free_mb = host_mb - total_mb(servers[server_id].memory_mb for server_id in set(pinned))
    others = [server_id for server_id in uses if server_id not in set(pinned)]
    if not others:
        return Optimum(len(set(pinned)), exact=True)
    named = [servers[server_id] for server_id in set(others)]
    # A server that sleeps comes back without a load: what it holds then is the least that a hit can cost.
    least_mb = {spec.id: spec.memory_mb if spec.asleep_mb is None else spec.asleep_mb for spec in named}
    smallest = min(least_mb.values())
    exact = len({spec.memory_mb for spec in named}) == 1 and all(spec.asleep_mb is None for spec in named)
    num_slots = len(named) if smallest <= 0 else int((free_mb + ROUNDING_MB) / smallest)
    num_loads = _belady_loads(others, max(1, num_slots))
    if not exact:
        beside = [free_mb - servers[server_id].memory_mb for server_id in others]
        num_loads = max(num_loads, _packed_loads(others, least_mb, total_mb(beside) + ROUNDING_MB * len(others)))
    return Optimum(num_loads + len(set(pinned)), exact)


def _belady_loads(uses: Sequence[str], num_slots: int) -> int:
    """Loads of Belady's rule with room for *num_slots* servers of one size."""
    following = next_places(uses)
    resident: dict[str, float] = {}
    farthest: list[tuple[float, str]] = []
    num_loads = 0
    for place, server_id in enumerate(uses):
        if server_id not in resident:
            num_loads += 1
            if len(resident) >= num_slots:
                while True:
                    next_use, gone = heapq.heappop(farthest)
                    if resident.get(gone) == -next_use:  # else it was used since: an older entry
                        break
                del resident[gone]
        resident[server_id] = following[place]
        heapq.heappush(farthest, (-following[place], server_id))
    return num_loads


def _packed_loads(uses: Sequence[str], least_mb: Mapping[str, float], area: float) -> int:
    """Uses less the most hits whose sizes times the needs between fit into *area*, MB times needs."""
    following = next_places(uses)
    areas = sorted(
        least_mb[server_id] * (following[place] - place - 1) for place, server_id in enumerate(uses) if math.isfinite(following[place])
    )
    num_hits = 0
    for needed in areas:
        area -= needed
        if area < -ROUNDING_MB:
            break
        num_hits += 1
    return len(uses) - num_hits
