"""Which experts the lines of a batch ask, in arrays: about 20 bytes a line and call instead of an object for each."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from domain.errors import InvalidRequest


def frozen(numbers: array[int]) -> memoryview[int]:
    """*numbers* (of type "I") as they are now, read-only."""
    return memoryview(numbers.tobytes()).cast("I")


@dataclass(frozen=True, slots=True)
class RouteTable:
    """The calls that a batch leads to. Lines, calls and experts are numbers from 0, in the order in which they were added.

    The calls of a line stand together: its candidates, best first, then its aggregator's, when it has one. An expert that
    was drawn twice for a line has two calls there.
    """

    expert_ids: tuple[str, ...]
    offsets: memoryview[int] = field(repr=False, hash=False)
    """(lines + 1): the first call of each line, and the number of calls at the end."""
    experts: memoryview[int] = field(repr=False, hash=False)
    """(calls): the number of the call's expert in ``expert_ids``."""
    aggregated: bytes = field(repr=False)
    """(lines): 1 where the line's last call is its aggregator's."""

    @property
    def num_lines(self) -> int:
        return len(self.aggregated)

    @property
    def num_calls(self) -> int:
        return len(self.experts)

    def candidates(self, line: int) -> range:
        """The calls of the line's candidates, best first; never empty."""
        return range(self.offsets[line], self.offsets[line + 1] - self.aggregated[line])

    def aggregator(self, line: int) -> int | None:
        """The call of the line's aggregator. It is made when two or more candidates have answered, and only then."""
        return self.offsets[line + 1] - 1 if self.aggregated[line] else None

    def line_of(self, call: int) -> int:
        return bisect_right(self.offsets, call) - 1

    def expert_of(self, call: int) -> str:
        return self.expert_ids[self.experts[call]]


class RouteTableBuilder:
    """Takes the lines one after the other, then gives the table."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._offsets, self._experts, self._aggregated = array("I", [0]), array("I"), bytearray()

    def add(self, candidates: Sequence[str], aggregator: str | None = None) -> int:
        """The number of the new line. *candidates* (expert ids) are asked; *aggregator* reads them when there are several.

        Raises ``InvalidRequest`` for a line without candidates.
        """
        if not candidates:
            raise InvalidRequest("a line of a batch needs at least one expert")
        for expert in candidates:
            self._experts.append(self._number(expert))
        with_aggregator = aggregator is not None and len(candidates) > 1
        if aggregator is not None and with_aggregator:
            self._experts.append(self._number(aggregator))
        self._aggregated.append(with_aggregator)
        self._offsets.append(len(self._experts))
        return len(self._aggregated) - 1

    def build(self) -> RouteTable:
        return RouteTable(tuple(self._numbers), frozen(self._offsets), frozen(self._experts), bytes(self._aggregated))

    def _number(self, expert: str) -> int:
        return self._numbers.setdefault(expert, len(self._numbers))
