"""Where a plan stands while it runs: which loads and turns may begin now. The engine and the prediction both ask it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.batch.plan import Turn


class PlanCursor:
    """Mutable. Knows no time: its owner says what has begun and ended.

    Whatever begins only when it is named here keeps these rules: one load at a time on a device, in the plan's order, after
    the turns whose servers it evicts; a turn after its server's load and the turns that hold its lines' candidates, on a
    free slot. Some load or turn may always begin until all have ended, since none waits for a later one.

    A turn in which nothing is due any more (its expert was given up, it was answered elsewhere) begins and ends at once, and
    its load may be left out. What that load evicts has to leave all the same: later loads count on it.
    """

    def __init__(self, turns: Sequence[Turn], slots: Mapping[str, int]) -> None:
        self._turns = turns
        self._free = dict(slots)
        self._loads: dict[str, list[Turn]] = {}
        """By device, those that have not begun, last first."""
        self._loading: set[str] = set()
        self._loaded: set[int] = set()
        self._waiting = list(turns)
        self._ended: set[int] = set()
        self._brought_by: list[int | None] = []
        """(turns): the turn whose load brings the server."""
        latest: dict[tuple[str | None, str | None], int] = {}
        for turn in turns:
            if turn.load is not None and turn.device is not None:
                self._loads.setdefault(turn.device, []).insert(0, turn)
                latest[turn.server, turn.device] = turn.number
            self._brought_by.append(latest.get((turn.server, turn.device)))

    @property
    def finished(self) -> bool:
        return len(self._ended) == len(self._turns)

    def due_loads(self) -> list[Turn]:
        """Turns whose load may begin now, one a device at most."""
        nexts = [loads[-1] for device, loads in self._loads.items() if loads and device not in self._loading]
        return [turn for turn in nexts if turn.load is not None and self._ended.issuperset(turn.load.after)]

    def leaving(self) -> list[tuple[str, str]]:
        """Servers, with their devices, that a device's next load evicts, and that the turns before it are done with."""
        nexts = [(loads[-1].load, device) for device, loads in self._loads.items() if loads]
        due = [(load, device) for load, device in nexts if load is not None and self._ended.issuperset(load.after)]
        return [(server, device) for load, device in due for server in load.evict]

    def due_turns(self) -> list[Turn]:
        """Turns that may begin now, in the plan's order; a device gets as many as it has free slots."""
        free, due = dict(self._free), []
        for turn in self._waiting:
            if not self._is_ready(turn):
                continue
            if turn.device is not None:
                if not free[turn.device]:
                    continue
                free[turn.device] -= 1
            due.append(turn)
        return due

    def load_began(self, turn: Turn) -> None:
        if turn.device is not None:
            self._loads[turn.device].remove(turn)
            self._loading.add(turn.device)

    def load_ended(self, turn: Turn) -> None:
        if turn.device is not None:
            self._loading.remove(turn.device)
        self._loaded.add(turn.number)

    def began(self, turn: Turn) -> None:
        self._waiting.remove(turn)
        if turn.device is not None:
            self._free[turn.device] -= 1

    def ended(self, turn: Turn) -> None:
        self._ended.add(turn.number)
        if turn.device is not None:
            self._free[turn.device] += 1

    def _is_ready(self, turn: Turn) -> bool:
        brought_by = self._brought_by[turn.number]
        return (brought_by is None or brought_by in self._loaded) and self._ended.issuperset(turn.after)
