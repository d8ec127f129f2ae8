"""Servers that must be loaded at the same time: each aggregates lines that wait for another's candidates. Pure.

A server that is both candidate and aggregator is *open* from its candidates to its aggregations. In an order without a
second load everything that is open stays in memory. Which order keeps least open is the vertex separation problem, which
is NP-hard; it is solved exactly for up to ``MAX_EXACT`` servers that wait for each other, and greedily beyond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.batch.jobs import Copy

MAX_EXACT = 12
"""2 ** 12 sets of servers times 12 last ones: a tenth of a second. More than twelve aggregators that are also candidates,
each waiting for another, are rare, and a good order is found for them too."""


@dataclass(frozen=True, slots=True)
class Knot:
    """Servers that wait for each other, numbered from 0, with what decides about their order."""

    copies: tuple[Copy, ...]
    needs: tuple[int, ...]
    """(copies) as bits: whose candidates a copy's aggregations wait for, its own included."""
    memory_mb: tuple[float, ...]
    room_mb: tuple[float, ...]
    """(copies): of the device on which a copy is."""

    def excess_mb(self, visited: int, copy: int) -> float:
        """Memory that is missing while *copy* is loaded for its candidates and what is open of *visited* (bits) is kept."""
        device = self.copies[copy][1]
        kept = sum(
            self.memory_mb[other]
            for other in range(len(self.copies))
            if visited >> other & 1 and self.needs[other] & ~visited and self.copies[other][1] == device
        )
        return max(0.0, kept + self.memory_mb[copy] - self.room_mb[copy])


def knots(needs: Mapping[Copy, frozenset[Copy]]) -> list[tuple[Copy, ...]]:
    """The strongly connected sets of *needs* (who waits for whom), in the order in which they were first seen."""
    copies = list(needs)
    number = {copy: place for place, copy in enumerate(copies)}
    reach = [sum(1 << number[needed] for needed in needs[copy]) | 1 << place for place, copy in enumerate(copies)]
    for through in range(len(copies)):  # Warshall's closure, a row of bits at a time
        for start in range(len(copies)):
            if reach[start] >> through & 1:
                reach[start] |= reach[through]
    found, seen = [], set[int]()
    for place in range(len(copies)):
        if place not in seen:
            members = [other for other in range(len(copies)) if reach[place] >> other & 1 and reach[other] >> place & 1]
            seen.update(members)
            found.append(tuple(copies[member] for member in members))
    return found


def visiting_order(knot: Knot) -> list[int]:
    """An order of the candidates' turns in which what stays open misses least memory; none when that is possible."""
    if len(knot.copies) == 1:
        return [0]
    return _exact(knot) if len(knot.copies) <= MAX_EXACT else _greedy(knot)


def closings(knot: Knot, order: Sequence[int]) -> list[tuple[int, list[int]]]:
    """*order* with, after each copy, those whose aggregations can then run: itself first, then the latest visited, which
    is most likely to be still loaded."""
    visited, waiting, steps = 0, list[int](), []
    for copy in order:
        visited |= 1 << copy
        waiting.append(copy)
        closed = [other for other in reversed(waiting) if not knot.needs[other] & ~visited]
        waiting = [other for other in waiting if other not in closed]
        steps.append((copy, closed))
    return steps


def _exact(knot: Knot) -> list[int]:
    """Dynamic programming over the set of visited copies; the cost is the sum of what is missing at each step."""
    size = len(knot.copies)
    best: list[tuple[float, int]] = [(0.0, -1)] * (1 << size)
    for visited in range(1, 1 << size):
        best[visited] = min(
            (best[visited & ~(1 << last)][0] + knot.excess_mb(visited & ~(1 << last), last), last)
            for last in range(size)
            if visited >> last & 1
        )
    order, visited = [], (1 << size) - 1
    while visited:
        last = best[visited][1]
        order.append(last)
        visited &= ~(1 << last)
    return order[::-1]


def _greedy(knot: Knot) -> list[int]:
    order, visited = list[int](), 0
    while len(order) < len(knot.copies):
        order.append(_greediest(knot, visited))
        visited |= 1 << order[-1]
    return order


def _greediest(knot: Knot, visited: int) -> int:
    """Who, after *visited*, misses least memory while it is loaded; of equals, who then leaves least open."""
    open_mb: dict[str, float] = {}
    closing_mb: dict[int, float] = {}
    for copy, (_, device) in enumerate(knot.copies):
        if visited >> copy & 1 and (missing := knot.needs[copy] & ~visited):
            open_mb[device] = open_mb.get(device, 0.0) + knot.memory_mb[copy]
            closing_mb[missing] = closing_mb.get(missing, 0.0) + knot.memory_mb[copy]

    def greed(copy: int) -> tuple[float, float, int]:
        own_mb = knot.memory_mb[copy]
        excess_mb = max(0.0, open_mb.get(knot.copies[copy][1], 0.0) + own_mb - knot.room_mb[copy])
        opened_mb = own_mb if knot.needs[copy] & ~(visited | 1 << copy) else 0.0
        return excess_mb, opened_mb - closing_mb.get(1 << copy, 0.0), copy

    return min((copy for copy in range(len(knot.copies)) if not visited >> copy & 1), key=greed)
