"""Pure arithmetic on what was measured in rounds. Every figure is a median over rounds, every addition one within its own round:
what else the machine did hits all ways of a round alike."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load import Load


@dataclass(frozen=True, slots=True)
class Sample:
    """One way in one round. Milliseconds."""

    p50: float
    p99: float
    rate: float
    """Answers per second."""
    processor_ms: float = 0.0
    """Of the gateway, a request."""
    load_ms: float = 0.0
    """Of the load generator, a request."""
    chunk_p50: float = 0.0
    chunk_p99: float = 0.0
    num_failed: int = 0
    others: float = 0.0
    """Share of the machine's processors that other programs used meanwhile."""


@dataclass(frozen=True, slots=True)
class Added:
    """What a way adds to the direct one: the median over rounds, and the rounds' extremes."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


def quantile(values: Sequence[float], q: float) -> float:
    """The *q* quantile with linear interpolation; NaN of nothing."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def sample_of(load: Load, *, processor_s: float = 0.0, streamed: bool = False, others: float = 0.0) -> Sample:
    """The figures of one run; of streams, *p50* and *p99* are to the first piece."""
    times, num = (load.first if streamed else load.latencies), max(1, load.num_done)
    return Sample(
        quantile(times, 0.5),
        quantile(times, 0.99),
        load.rate,
        processor_s / num * 1e3,
        load.processor_s / num * 1e3,
        quantile(load.chunks, 0.5),
        quantile(load.chunks, 0.99),
        load.num_failed,
        others,
    )


def added(way: Sequence[Sample], direct: Sequence[Sample], figure: str) -> Added:
    """*figure* of *way* minus that of *direct*, round by round."""
    differences = [getattr(mine, figure) - getattr(plain, figure) for mine, plain in zip(way, direct, strict=True)]
    return Added(statistics.median(differences), min(differences), max(differences))


def median(samples: Sequence[Sample], figure: str) -> float:
    """Of *figure*, over rounds."""
    return float(statistics.median(getattr(sample, figure) for sample in samples))


def turn(names: Sequence[str], number: int) -> list[str]:
    """The order of round *number*: everybody comes first once, so that nobody always follows the same one."""
    start = number % len(names)
    return [*names[start:], *names[:start]]
