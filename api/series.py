"""Series with labels, and their lines in Prometheus' text format, kept until they change.

The library writes every line anew at each scrape: seconds for 20,000 series, in which nobody would be answered. Most of them have not
changed since the last scrape; the others are written in slices, between which requests go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.utils import floatToGoString

MetricT = TypeVar("MetricT", bound=MetricWrapperBase)

OTHER = "other"
"""What is counted under a label when there is no room for its value."""
_SLICE = 20
"""Series that are written at once: about a millisecond."""


class _Series:
    """One child of a metric."""

    __slots__ = ("_labels", "_prefixes", "child", "lines")

    def __init__(self, child: MetricWrapperBase, labels: Mapping[str, str]) -> None:
        self.child = child
        self.lines: bytes | None = None
        """As they were written last; None once something was counted since."""
        self._labels = labels
        self._prefixes: list[str] = []
        """Of each line: all but its number, which alone changes."""

    def written(self) -> bytes:
        samples = [sample for family in self.child.collect() for sample in family.samples]
        if not self._prefixes:
            self._prefixes = [f"{sample.name}{_braced({**self._labels, **sample.labels})} " for sample in samples]
        numbers = (floatToGoString(sample.value) for sample in samples)  # type: ignore[no-untyped-call]
        self.lines = "".join(f"{prefix}{number}\n" for prefix, number in zip(self._prefixes, numbers, strict=True)).encode()
        return self.lines


class SeriesTable:
    """The labelled metrics of one process, and at most *max_series* series of them. Further ones are counted together: each label of
    theirs is ``other``."""

    def __init__(self, *, max_series: int, labels: Mapping[str, str]) -> None:
        """*labels* are on every line."""
        self._max_series, self._labels = max_series, labels
        self._names: dict[MetricWrapperBase, tuple[str, ...]] = {}
        self._series: dict[tuple[MetricWrapperBase, tuple[str, ...]], _Series] = {}

    def __len__(self) -> int:
        return len(self._series)

    def counter(self, name: str, documentation: str, labels: tuple[str, ...]) -> Counter:
        return self._made(Counter(name, documentation, labels, registry=None), labels)

    def histogram(self, name: str, documentation: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
        return self._made(Histogram(name, documentation, labels, buckets=buckets, registry=None), labels)

    def _made(self, metric: MetricT, labels: tuple[str, ...]) -> MetricT:
        self._names[metric] = labels
        return metric

    def of(self, metric: MetricT, values: tuple[str, ...]) -> MetricT:
        """The series of *metric* with these label values, to be counted in now. ``metric.labels(*values)`` would check and look up again
        what it is given, under a lock; a request asks for ten."""
        known = self._series.get((metric, values))
        if known is None:
            if len(self._series) >= self._max_series:
                values = (OTHER,) * len(values)
            known = self._series.get((metric, values))
            if known is None:
                labels = dict(zip(self._names[metric], values, strict=True))
                known = self._series[metric, values] = _Series(metric.labels(*values), {**labels, **self._labels})
        known.lines = None
        return known.child  # type: ignore[return-value]

    def forget(self, is_gone: Callable[[MetricWrapperBase, tuple[str, ...]], bool]) -> None:
        """Let go of the series that are about something that is gone."""
        for metric, values in [key for key in self._series if is_gone(*key)]:
            metric.remove(*values)
            del self._series[metric, values]

    def collect(self) -> Iterator[Metric]:
        """Every metric with its series, as the library has them."""
        for metric in self._names:
            yield from metric.collect()

    async def render(self) -> bytes:
        """Every line."""
        lines: dict[MetricWrapperBase, list[bytes]] = {metric: [_heading(metric)] for metric in self._names}
        num_written = 0
        for (metric, _), series in list(self._series.items()):
            if series.lines is None:
                num_written += 1
                if num_written % _SLICE == 0:
                    await asyncio.sleep(0)
            lines[metric].append(series.lines or series.written())
        return b"".join(line for told in lines.values() for line in told)


def _heading(metric: MetricWrapperBase) -> bytes:
    described = next(iter(metric.describe()))
    name = f"{described.name}_total" if described.type == "counter" else described.name
    return f"# HELP {name} {_escaped(described.documentation)}\n# TYPE {name} {described.type}\n".encode()


def _braced(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_quoted(value)}"' for name, value in sorted(labels.items())) + "}" if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')
