"""The cheapest choice that frees enough: a covering knapsack with several options an item. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from workers.residency.servers import ROUNDING_MB

MAX_STATES = 500
"""Partial choices that are kept after each item. A host holds few servers, so that this is seldom reached; beyond it the
choice is good, no longer surely the best."""


@dataclass(frozen=True, slots=True)
class Option:
    """One way to free memory with an item."""

    freed: float
    loss: float


class _State(NamedTuple):
    """A choice among the items so far. There are many: a tuple is made five times as fast as a dataclass."""

    freed: float
    loss: float
    num_chosen: int = 0
    last: tuple[int, int] | None = None
    """Item and option chosen last."""
    before: _State | None = None


def cheapest_cover(items: Sequence[Sequence[Option]], needed: float) -> dict[int, int]:
    """Item to option, at most one option an item, so that what is freed reaches *needed* at the smallest total loss.

    Of equal losses the one with fewer items, then the one with earlier items. Exact while no more than ``MAX_STATES`` partial
    choices are worth keeping: one is not when another frees as much and loses less, or as much with no more items. Raises
    ``ValueError`` when even the best option of every item does not reach *needed*.
    """
    states = [_State(0.0, 0.0)]
    for item, options in enumerate(items):
        taken = [
            _State(min(needed, state.freed + option.freed), state.loss + option.loss, state.num_chosen + 1, (item, number), state)
            for state in states
            for number, option in enumerate(options)
            if option.freed > 0
        ]
        states = _worth_keeping(states + taken)
    enough = needed - 2 * ROUNDING_MB  # twice: who asks has rounded once already
    best = min((state for state in states if state.freed >= enough), key=lambda state: (state.loss, state.num_chosen), default=None)
    if best is None:
        raise ValueError(f"all items together do not free {needed:g}")
    return _choices(best)


def _worth_keeping(states: list[_State]) -> list[_State]:
    """Those that no other beats in everything, by falling memory freed; the first of equals."""
    kept: list[_State] = []
    for state in sorted(states, key=lambda state: (-state.freed, state.loss, state.num_chosen)):
        if not kept or (state.loss, state.num_chosen) < (kept[-1].loss, kept[-1].num_chosen):
            kept.append(state)
    if len(kept) <= MAX_STATES:
        return kept
    # Evenly thinned. The first frees most, and must stay: without it a possible choice could be missed.
    return [kept[i * len(kept) // MAX_STATES] for i in range(MAX_STATES)]


def _choices(state: _State) -> dict[int, int]:
    chosen: dict[int, int] = {}
    at: _State | None = state
    while at is not None and at.last is not None:
        item, option = at.last
        chosen[item] = option
        at = at.before
    return chosen
