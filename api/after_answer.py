"""What is told of a request for people to look at, told when its answer is on its way: whoever waits for it does not wait for that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from domain.trace import Trace
from orchestrator.ports import TraceSink

log = logging.getLogger(__name__)


class AfterAnswer:
    """Hands each trace to *sinks* in the event loop's next turn (``orchestrator.ports.TraceSink``).

    An event loop sends what was written when the running turn ends, so that everything done beside the answer in that turn is time to
    its first byte. Nothing may come here that the next request goes by: a caller in the same process may ask before that turn. One
    turn's traces are all that ever waits here.
    """

    def __init__(self, sinks: Sequence[TraceSink]) -> None:
        self._sinks = tuple(sinks)
        self._waiting: list[Trace] = []

    def emit(self, trace: Trace) -> None:
        if not self._waiting:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:  # no loop, no next turn
                self._hand_on(trace)
                return
        self._waiting.append(trace)

    def flush(self) -> None:
        """Hand on what waits."""
        waiting, self._waiting = self._waiting, []
        for trace in waiting:
            self._hand_on(trace)

    def _hand_on(self, trace: Trace) -> None:
        for sink in self._sinks:
            try:
                sink.emit(trace)
            except Exception:  # nobody is there to hear it, and the other sinks and traces are to be told still
                log.exception("a trace could not be taken by %s, request %s", type(sink).__name__, trace.request_id)
