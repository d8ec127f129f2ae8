"""Spans on their way to a collector: gathered beside the requests, sent by a thread of its own, dropped where it cannot keep up."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from api.spans import CHAT, CardOf, Span, spans_of
from domain.trace import Trace

log = logging.getLogger(__name__)

MAX_QUEUED = 2048
"""Requests whose spans wait, about 15 MB: some seconds of what one process can serve. A collector that is away for longer loses them."""
MAX_SENT = 256
"""Requests whose spans go out together: a message of some hundred kilobytes."""
GATHER_S = 1.0
"""How long spans are gathered: one message a second costs less than one a request, and nobody looks at a trace sooner."""
CLOSE_TIMEOUT_S = 5.0
"""Longest time for the last messages: under what orchestrators leave after SIGTERM."""


class Collector(Protocol):
    """Where spans are sent."""

    def send(self, spans: Sequence[Span]) -> bool:
        """Whether the collector has taken *spans*. Blocks for a bounded time; must not raise."""
        ...

    def close(self) -> None:
        """End a ``send`` that waits for another attempt; from any thread."""
        ...


class SpanExporter:
    """Satisfies ``orchestrator.ports.TraceSink``: ``emit`` puts into memory, a thread sends what came within *gather_s*.

    A thread and not a task: making messages takes processor time, and sending them blocks. It is a daemon, so that a collector that hangs
    cannot keep the process from ending. When *max_queued* requests wait, further ones are dropped, and counted in ``num_dropped`` as those
    are that the collector does not take.
    """

    def __init__(
        self,
        collector: Collector,
        card_of: CardOf,
        *,
        max_queued: int = MAX_QUEUED,
        gather_s: float = GATHER_S,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
    ) -> None:
        """*card_of* knows the experts, None for one that is gone."""
        self._collector, self._card_of = collector, card_of
        self._max_queued, self._gather_s, self._close_timeout_s = max_queued, gather_s, close_timeout_s
        self._queue: deque[list[Span]] = deque()
        self._hurry, self._closing, self._given_up = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="span exporter", daemon=True)
        self._is_failing = False
        self._num_refused = self._num_lost = 0  # each is changed by one thread only
        self.num_exported = 0
        """Requests whose spans the collector has taken, since the start."""

    @property
    def num_dropped(self) -> int:
        """Requests whose spans were lost, since the start."""
        return self._num_refused + self._num_lost

    def emit(self, trace: Trace, operation: str = CHAT) -> None:
        """Take the spans of *trace*, where its trace is kept; never blocks, never raises. *operation*: what was asked for."""
        if trace.context is None or not trace.context.sampled:
            return
        if self._has_room():
            self._put(spans_of(trace, self._card_of, operation=operation))

    def add(self, span: Span) -> None:
        """Take the one span of a request that leaves no trace, where its trace is kept; never blocks, never raises."""
        if span.context.sampled and self._has_room():
            self._put([span])

    def _has_room(self) -> bool:
        """Whether one more request may wait. If not, it is counted as dropped."""
        if len(self._queue) < self._max_queued:
            return True
        self._num_refused += 1
        return False

    def _put(self, spans: list[Span]) -> None:
        self._queue.append(spans)
        if len(self._queue) >= min(MAX_SENT, self._max_queued):
            self._hurry.set()

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    async def close(self) -> None:
        """Send what waits, for at most ``close_timeout_s``; what cannot be sent by then is counted as dropped."""
        if not self._thread.is_alive():
            return
        self._closing.set()
        self._hurry.set()
        await asyncio.to_thread(self._thread.join, self._close_timeout_s)
        if self._thread.is_alive():
            self._given_up.set()
            log.warning("the collector of spans did not take the last ones within %g s", self._close_timeout_s)
        await asyncio.to_thread(self._collector.close)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._hurry.wait(self._gather_s)
            self._hurry.clear()
            while self._queue and not self._given_up.is_set():
                self._send_some()
        self._num_lost += len(self._queue)
        self._queue.clear()

    def _send_some(self) -> None:
        some: list[list[Span]] = []
        while self._queue and len(some) < MAX_SENT:
            some.append(self._queue.popleft())
        if self._collector.send([span for spans in some for span in spans]):
            self.num_exported += len(some)
            if self._is_failing:
                log.info("the collector takes spans again")
            self._is_failing = False
            return
        self._num_lost += len(some)
        if not self._is_failing:
            log.warning("the collector does not take spans; they are dropped, and counted, until it does")
        self._is_failing = True
