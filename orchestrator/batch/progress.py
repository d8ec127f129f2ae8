"""What is settled of a batch: which calls have answered or failed, and what that makes of their lines."""

from __future__ import annotations

from collections import Counter
from enum import IntEnum, StrEnum

from domain.batch import RequestCounts
from orchestrator.batch.routes import RouteTable


class CallState(IntEnum):
    PENDING = 0
    ANSWERED = 1
    FAILED = 2
    """For good: its retries are over, or its expert was given up."""


class LineState(StrEnum):
    WAITING = "waiting"
    """Some candidate has neither answered nor failed."""
    AGGREGATING = "aggregating"
    """The candidates are settled and two or more have answered: the aggregator's call can be made."""
    ANSWERED = "answered"
    """The answer can be written: one candidate is left, no aggregator is needed, or the aggregator is settled. One that
    failed gives way to the candidates, as it does for a single request."""
    FAILED = "failed"
    """No candidate has answered."""


class Progress:
    """Mutable, one byte a call. Only ever moves forward: what is settled stays as it is."""

    def __init__(self, table: RouteTable) -> None:
        self.table = table
        self._states = bytearray(table.num_calls)
        self._lines: Counter[LineState] = Counter({LineState.WAITING: table.num_lines})

    def __getitem__(self, call: int) -> CallState:
        return CallState(self._states[call])

    @property
    def states(self) -> memoryview[int]:
        """(calls) a ``CallState`` each, read-only."""
        return memoryview(self._states).toreadonly()

    @property
    def counts(self) -> RequestCounts:
        """Of lines. A line counts as soon as its last call is settled."""
        return RequestCounts(self.table.num_lines, self._lines[LineState.ANSWERED], self._lines[LineState.FAILED])

    def settle(self, call: int, state: CallState) -> LineState:
        """Keep that the call has answered or failed; what its line is now. A call that is settled is left as it is."""
        line = self.table.line_of(call)
        before = self.line(line)
        if self._states[call] == CallState.PENDING and state is not CallState.PENDING:
            self._states[call] = state
            after = self.line(line)
            self._lines[before] -= 1
            self._lines[after] += 1
            return after
        return before

    def line(self, line: int) -> LineState:
        candidates = [self._states[call] for call in self.table.candidates(line)]
        if CallState.PENDING in candidates:
            return LineState.WAITING
        num_answered = candidates.count(CallState.ANSWERED)
        if not num_answered:
            return LineState.FAILED
        aggregator = self.table.aggregator(line)
        if num_answered > 1 and aggregator is not None and self._states[aggregator] == CallState.PENDING:
            return LineState.AGGREGATING
        return LineState.ANSWERED

    def is_due(self, call: int) -> bool:
        """Whether the call can be made now: it is pending, and an aggregator's has two or more candidates to read."""
        if self._states[call] != CallState.PENDING:
            return False
        line = self.table.line_of(call)
        return call != self.table.aggregator(line) or self.line(line) is LineState.AGGREGATING
