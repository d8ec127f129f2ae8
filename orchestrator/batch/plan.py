"""The plan of a batch: whose turn it is when, and what is loaded and evicted for it. Immutable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from domain.plan import CallRole
from orchestrator.batch.buckets import Bucket
from orchestrator.batch.progress import Progress
from orchestrator.batch.routes import RouteTable


@dataclass(frozen=True, slots=True)
class Load:
    """A server is loaded before a turn.

    It may begin when the device's load before it has ended and when the turns in ``after`` have: what they used is evicted
    for it. Where these are not the turns right before, it runs while others work: the prefetch.
    """

    evict: tuple[str, ...] = ()
    """Servers that leave the same device first, in this order."""
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """What one server does in one role: its buckets, which may run together, since they share the server."""

    number: int
    """Its place in the plan, from 0. Nothing of a turn waits for a later one."""
    server: str | None
    """None: it runs elsewhere and needs neither a load nor a slot."""
    device: str | None
    role: CallRole
    buckets: tuple[Bucket, ...]
    after: tuple[int, ...]
    """Turns that must have ended: they hold the candidates of this turn's lines."""
    load: Load | None
    """None: the server is there, from before the plan or from an earlier turn."""

    @property
    def seconds(self) -> float:
        """Predicted, one bucket after the other."""
        return sum(bucket.seconds for bucket in self.buckets)

    @property
    def num_calls(self) -> int:
        return sum(bucket.num_calls for bucket in self.buckets)


@dataclass(frozen=True, slots=True)
class Reload:
    """A server that is loaded again, because it had to leave between two of its turns."""

    turn: int
    """For which it is loaded again."""
    server: str
    device: str
    evicted_for: int
    """The turn whose load made it leave."""
    why: str


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds from the plan's start."""

    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class CriticalStep:
    """One step of the chain that makes the plan as long as it is; each begins when the one before it ends."""

    turn: int
    is_load: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Prediction:
    """When everything would happen if loads and calls took as long as was measured."""

    total_s: float
    turns: tuple[Span, ...]
    loads: Mapping[int, Span]
    """By the number of the turn that they are for."""
    critical_path: tuple[CriticalStep, ...]

    @property
    def critical_load_s(self) -> float:
        """Seconds for which nothing shorter than a load holds everything up."""
        return sum(step.span.seconds for step in self.critical_path if step.is_load)


@dataclass(frozen=True)
class BatchPlan:
    """Turns in the order in which they are preferred; ``cursor.PlanCursor`` says which may start.

    To plan again after a restart, or without an expert, call ``planning.plan_batch`` with the same table and its progress.
    """

    table: RouteTable
    turns: tuple[Turn, ...]
    slots: Mapping[str, int]
    """Turns that run at once, by device."""
    resident: frozenset[tuple[str, str]]
    """(server, device) that the plan found loaded."""
    impossible: Mapping[str, str]
    """Experts whose calls were left out, with the reason: no device can hold their server."""
    reloads: tuple[Reload, ...]
    prediction: Prediction

    @property
    def num_calls(self) -> int:
        """Calls to make at most: an aggregator's falls away when fewer than two of its candidates answer."""
        return sum(turn.num_calls for turn in self.turns)

    @property
    def num_loads(self) -> int:
        return sum(turn.load is not None for turn in self.turns)

    @cached_property
    def servers(self) -> frozenset[str]:
        return frozenset(turn.server for turn in self.turns if turn.server is not None)

    @cached_property
    def copies(self) -> frozenset[tuple[str, str]]:
        """(server, device) that have turns; more than ``servers`` where a bucket was split."""
        return frozenset((turn.server, turn.device) for turn in self.turns if turn.server is not None and turn.device is not None)

    @property
    def buckets(self) -> Iterator[Bucket]:
        """In the plan's order."""
        return (bucket for turn in self.turns for bucket in turn.buckets)

    @property
    def why_loads(self) -> str:
        """How many loads there are and why they are not fewer, in a sentence for people."""
        found, again = len(self.copies & self.resident), len(self.reloads)
        parts = [f"{len(self.servers)} servers"]
        if extra := len(self.copies) - len(self.servers):
            parts.append(f"{extra} second copies")
        if found:
            parts.append(f"{found} found loaded")
        if again:
            parts.append(f"{again} loaded again: " + "; ".join(reload.why for reload in self.reloads))
        return f"{self.num_loads} loads: " + ", ".join(parts)


def due_in(bucket: Bucket, progress: Progress) -> Iterator[int]:
    """The calls of *bucket* that can be made now, ascending: neither settled, nor an aggregator's without its candidates."""
    return (call for call in bucket.calls if progress.is_due(call))
