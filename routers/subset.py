"""The best set of experts within limits of price and memory. Pure.

After MoE² (arXiv 2501.09410): a subset of whole models under latency and energy limits, whose quality only grows with its members, so
that the search is over what still fits. Here the quality of a set is the chance that one of it is right, ``1 - Π (1 - s)``, if they
err independently; its logarithm is a sum, and one member more never makes it worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

EXACT_UP_TO = 16
"""Experts of which every subset is looked at: 65,536 of them, a millisecond. Of more, a greedy set is improved by swaps."""
_POOL = 24
"""Experts that searches start from and swaps try, of each of the best, the cheapest and the best for their price."""
_NUM_STARTS = 3
"""Greedy sets, the best, that are improved."""
_MAX_ROUNDS = 64
_SURE = 1 - 1e-9
"""A score of 1 would make everything beside it worthless."""
_SLACK = 1e-9
"""Sums of prices are not exact."""

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Choices:
    """E experts that may be chosen, each of which fits alone."""

    scores: Sequence[float]
    """In [0, 1]."""
    prices: Sequence[float]
    servers: Sequence[str | None]
    """What has to be loaded for each; several experts may live on one. None: nothing."""
    memory_mb: Sequence[float]
    """What loading it takes."""

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class Room:
    """What a set may take; infinite: any."""

    price: float = math.inf
    memory_mb: float = math.inf
    size: int = 1


def quality(scores: Iterable[float]) -> float:
    """The chance that one of a set with these scores is right, if they err independently."""
    return 1 - math.prod(1 - score for score in scores)


def best_subset(choices: Choices, room: Room) -> tuple[int, ...]:
    """Places of the best set that fits, best score first: exact for up to ``EXACT_UP_TO`` experts, else near it.

    Of equally good sets the cheaper is taken, then the one that loads less. Empty when nobody has a score above 0.
    """
    values = [-math.log1p(-min(score, _SURE)) for score in choices.scores]
    useful = [place for place in range(len(choices)) if values[place] > 0]
    ranked = sorted(useful, key=lambda place: (-values[place], choices.prices[place]))
    unlimited = tuple(ranked[: room.size])
    if _fits(choices, unlimited, room):
        return unlimited
    found = _exact(choices, useful, values, room) if len(useful) <= EXACT_UP_TO else _improved(choices, useful, values, room)
    return tuple(sorted(found, key=ranked.index))


def price_of(choices: Choices, places: Iterable[int]) -> float:
    return sum(choices.prices[place] for place in places)


def memory_of(choices: Choices, places: Iterable[int]) -> float:
    """Each server once."""
    return sum({server: choices.memory_mb[place] for place in places if (server := choices.servers[place]) is not None}.values())


def _fits(choices: Choices, places: Sequence[int], room: Room) -> bool:
    return (
        len(places) <= room.size
        and price_of(choices, places) <= room.price + _SLACK
        and memory_of(choices, places) <= room.memory_mb + _SLACK
    )


@lru_cache(maxsize=8)
def _sets(num: int, size: int) -> Floats:
    """(sets, num): which of *num* experts are in each set of at most *size*."""
    members = (np.arange(2**num, dtype=np.uint32)[:, None] >> np.arange(num, dtype=np.uint32)) & 1
    sets: Floats = members[members.sum(axis=1) <= size].astype(np.float64)
    return sets


def _exact(choices: Choices, places: Sequence[int], values: Sequence[float], room: Room) -> tuple[int, ...]:
    sets = _sets(len(places), min(room.size, len(places)))
    price = sets @ np.array([choices.prices[place] for place in places])
    memory = np.zeros(len(sets))
    for server in {choices.servers[place] for place in places} - {None}:
        on_it = [column for column, place in enumerate(places) if choices.servers[place] == server]
        memory += sets[:, on_it].any(axis=1) * max(choices.memory_mb[places[column]] for column in on_it)
    value = sets @ np.array([values[place] for place in places])
    value[(price > room.price + _SLACK) | (memory > room.memory_mb + _SLACK)] = -1.0
    equals = np.flatnonzero(value >= value.max() - _SLACK)
    best = min(equals.tolist(), key=lambda row: (price[row], memory[row]))
    return tuple(place for column, place in enumerate(places) if sets[best, column])


def _improved(choices: Choices, places: Sequence[int], values: Sequence[float], room: Room) -> tuple[int, ...]:
    """Greedy sets from several starts; the best of them improved by adding one and by exchanging one for one while that helps."""

    def worth(some: list[int]) -> tuple[float, float, float]:
        return round(sum(values[place] for place in some), 12), -price_of(choices, some), -memory_of(choices, some)

    by_value = sorted(places, key=lambda place: -values[place])
    by_rate = sorted(places, key=lambda place: -values[place] / (choices.prices[place] + _SLACK))
    by_price = sorted(places, key=lambda place: choices.prices[place])
    tried = sorted({place for order in (by_value, by_rate, by_price) for place in order[:_POOL]})
    starts = [_greedy(choices, order, room) for order in (by_value, by_rate, by_price)]
    starts += [_greedy(choices, [first, *order], room) for first in by_value[:_POOL] for order in (by_value, by_rate)]
    starts.sort(key=worth, reverse=True)
    improved = sorted((_swapped(choices, start, tried, room, worth) for start in starts[:_NUM_STARTS]), key=worth)
    return tuple(improved[-1])


def _swapped(
    choices: Choices, start: list[int], tried: Sequence[int], room: Room, worth: Callable[[list[int]], tuple[float, float, float]]
) -> list[int]:
    best = start
    for _ in range(_MAX_ROUNDS):
        others = [place for place in tried if place not in best]
        larger = [[*best, new] for new in others]
        exchanged = [[new if place == old else place for place in best] for old in best for new in others]
        better = max((some for some in (*larger, *exchanged) if _fits(choices, some, room)), key=worth, default=best)
        if worth(better) <= worth(best):
            break
        best = better
    return best


def _greedy(choices: Choices, order: Sequence[int], room: Room) -> list[int]:
    chosen: list[int] = []
    for place in order:
        if len(chosen) == room.size:
            break
        if place not in chosen and _fits(choices, [*chosen, place], room):
            chosen.append(place)
    return chosen
