"""What was used in the last minute, in slots. Never forgets early: no 60 seconds have more than the limit."""

from __future__ import annotations

from collections import deque

from domain.limiting import NUM_SLOTS, SLOT_S


def slot_of(now: float) -> int:
    """The slot of a moment in seconds."""
    return int(now / SLOT_S)


def ends_at(slot: int) -> float:
    """When what stands in *slot* leaves the window, in seconds."""
    return (slot + NUM_SLOTS + 1) * SLOT_S


class Window:
    """At most one entry for each slot; taking and settling are a few operations each, whatever was used."""

    __slots__ = ("_slots", "_total")

    def __init__(self) -> None:
        self._slots: deque[list[int]] = deque()
        self._total = 0

    def used(self, slot: int) -> int:
        """In the window that ends with *slot*."""
        first = slot - NUM_SLOTS
        while self._slots and self._slots[0][0] < first:
            self._total -= self._slots.popleft()[1]
        return self._total

    def add(self, slot: int, amount: int) -> None:
        """Count *amount* now."""
        if self._slots and self._slots[-1][0] == slot:
            self._slots[-1][1] += amount
        else:
            self._slots.append([slot, amount])
        self._total += amount

    def settle(self, taken_in: int, difference: int, slot: int) -> None:
        """What was counted in *taken_in* has turned out to be *difference* more (or less). What has left the window is over; more than was
        counted then is counted now."""
        if taken_in >= slot - NUM_SLOTS:
            for entry in reversed(self._slots):
                if entry[0] == taken_in:
                    entry[1] += difference
                    self._total += difference
                    return
        if difference > 0:
            self.add(slot, difference)

    def free_at(self, room: int) -> float:
        """When so much more will have left that *room* is free beside what must stay: *room* is negative by what is missing."""
        missing = -room
        for slot, amount in self._slots:
            missing -= amount
            if missing <= 0:
                return ends_at(slot)
        return ends_at(self._slots[-1][0]) if self._slots else 0.0

    def empty_at(self) -> float:
        """When everything will have left."""
        return ends_at(self._slots[-1][0]) if self._slots else 0.0
