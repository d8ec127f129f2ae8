"""When the turns of a plan would begin and end: the plan is run on a clock that only counts. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from orchestrator.batch.cursor import PlanCursor
from orchestrator.batch.plan import CriticalStep, Prediction, Span, Turn

_Step = tuple[int, bool]
"""A turn's number, and whether its load is meant."""


class _Clock:
    """What runs, and what had to end before it could begin."""

    def __init__(self) -> None:
        self.now = 0.0
        self.last: _Step | None = None
        """What ended last. Everything that may begin is begun after every end, so this is what it waited for."""
        self.spans: dict[_Step, Span] = {}
        self._running: list[tuple[float, _Step]] = []
        self._cause: dict[_Step, _Step | None] = {}

    def begin(self, step: _Step, seconds: float) -> None:
        self.spans[step] = Span(self.now, self.now + seconds)
        self._cause[step] = self.last
        heapq.heappush(self._running, (self.now + seconds, step))

    def advance(self) -> _Step:
        """The next that ends."""
        self.now, self.last = heapq.heappop(self._running)
        return self.last

    def critical_path(self) -> tuple[CriticalStep, ...]:
        steps: list[CriticalStep] = []
        step = self.last
        while step is not None:
            steps.append(CriticalStep(step[0], step[1], self.spans[step]))
            step = self._cause[step]
        return tuple(reversed(steps))


def predict(turns: Sequence[Turn], slots: Mapping[str, int], load_s: Mapping[str, float]) -> Prediction:
    """Loads take *load_s* (by server) and turns the sum of their buckets, and neither slows the other down."""
    cursor, clock = PlanCursor(turns, slots), _Clock()
    while not cursor.finished:
        for turn in cursor.due_loads():
            cursor.load_began(turn)
            clock.begin((turn.number, True), load_s[turn.server or ""])
        for turn in cursor.due_turns():
            cursor.began(turn)
            clock.begin((turn.number, False), turn.seconds)
        number, is_load = clock.advance()
        if is_load:
            cursor.load_ended(turns[number])
        else:
            cursor.ended(turns[number])
    return Prediction(
        total_s=clock.now,
        turns=tuple(clock.spans[turn.number, False] for turn in turns),
        loads={number: span for (number, is_load), span in clock.spans.items() if is_load},
        critical_path=clock.critical_path(),
    )
