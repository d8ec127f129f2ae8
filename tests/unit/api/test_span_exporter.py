"""Spans on their way: sent together, bounded, never in a request's way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from api.span_exporter import MAX_SENT, SpanExporter
from api.spans import Span
from domain.trace import Trace
from domain.trace_context import TraceContext

CONTEXT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
TRACE = Trace("r", "auto", "auto", 1.0, "ok", context=CONTEXT)
NEVER_S = 3600.0
WAIT_S = 30.0


@dataclass
class ScriptedCollector:
    """Takes spans, unless it *refuses*; while ``open`` is not set it hangs, until it is closed."""

    refuses: bool = False
    taken: list[Sequence[Span]] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)
    is_closed: bool = False

    def send(self, spans: Sequence[Span]) -> bool:
        self.asked.set()
        assert self.open.wait(WAIT_S)
        if self.refuses or self.is_closed:
            return False
        self.taken.append(spans)
        return True

    def close(self) -> None:
        self.is_closed = True
        self.open.set()


def exporter(collector: ScriptedCollector, **changes: float) -> SpanExporter:
    return SpanExporter(collector, lambda _: None, **{"gather_s": NEVER_S, **changes})  # type: ignore[arg-type]


async def test_what_waits_is_sent_together_before_the_end() -> None:
    collector = ScriptedCollector()
    collector.open.set()
    spans = exporter(collector)
    spans.start()
    for _ in range(3):
        spans.emit(TRACE)
    await spans.close()

    assert [len(sent) for sent in collector.taken] == [3]
    assert (spans.num_exported, spans.num_dropped) == (3, 0)
    assert collector.is_closed


async def test_traces_that_are_not_kept_are_not_sent() -> None:
    collector = ScriptedCollector()
    collector.open.set()
    spans = exporter(collector)
    spans.start()
    spans.emit(replace(TRACE, context=replace(CONTEXT, sampled=False)))
    spans.emit(replace(TRACE, context=None))
    await spans.close()

    assert collector.taken == []
    assert (spans.num_exported, spans.num_dropped) == (0, 0)


async def test_a_full_message_goes_out_before_its_time() -> None:
    collector = ScriptedCollector()
    collector.open.set()
    spans = exporter(collector)
    spans.start()
    for _ in range(MAX_SENT):
        spans.emit(TRACE)

    assert await asyncio.to_thread(collector.asked.wait, WAIT_S), "nobody waited for the hour to be over"
    await spans.close()
    assert spans.num_exported == MAX_SENT


async def test_a_collector_that_hangs_costs_a_bounded_memory_and_no_request() -> None:
    collector = ScriptedCollector()
    spans = exporter(collector, max_queued=5, close_timeout_s=0.0)
    spans.start()
    for _ in range(5):
        spans.emit(TRACE)
    assert await asyncio.to_thread(collector.asked.wait, WAIT_S)
    for _ in range(1000):  # the first five are on their way, five more have room
        spans.emit(TRACE)

    assert spans.num_dropped == 995
    await spans.close()  # does not wait for it
    await asyncio.to_thread(spans._thread.join, WAIT_S)
    assert spans.num_exported + spans.num_dropped == 1005, "each is counted once, whatever became of it"
    assert spans.num_dropped == 1005


async def test_a_collector_that_refuses_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    collector = ScriptedCollector(refuses=True)
    collector.open.set()
    spans = exporter(collector, max_queued=2 * MAX_SENT)
    for _ in range(2 * MAX_SENT):
        spans.emit(TRACE)
    spans.start()
    await spans.close()

    assert spans.num_dropped == 2 * MAX_SENT
    assert caplog.text.count("does not take spans") == 1


async def test_closing_without_having_started_is_nothing() -> None:
    await exporter(ScriptedCollector()).close()
