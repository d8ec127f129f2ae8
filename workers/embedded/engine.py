"""The thread that runs every embedded model."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque

import torch

from domain.errors import ExpertError, ExpertOverloaded, ExpertProtocolError, ExpertUnreachable
from workers.embedded.batch import Batch
from workers.embedded.model import LoadedModel
from workers.embedded.sequence import Events, Progress, Sequence
from workers.limits import EmbeddedLimits

_log = logging.getLogger(__name__)


class Engine:
    """One thread, one step of every busy model in turn.

    One thread, because steps of tiny models are mostly Python: several would only take the interpreter from each other.
    What a step has to tell is handed to the event loop in one call.
    """

    def __init__(self, limits: EmbeddedLimits) -> None:
        self._limits = limits
        self._wake = threading.Condition()
        self._inbox: deque[Sequence] = deque()
        self._batches: dict[LoadedModel, Batch] = {}
        self._outbox: dict[asyncio.AbstractEventLoop, list[tuple[Events, Progress]]] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="embedded-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Fail what is left and end the thread. Blocks for one step."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    @property
    def num_live(self) -> int:
        """Sequences that hold a place in a batch now."""
        return sum(len(batch.live) for batch in tuple(self._batches.values()))

    @property
    def num_waiting(self) -> int:
        return len(self._inbox) + sum(len(batch.waiting) for batch in tuple(self._batches.values()))

    def submit(self, sequences: list[Sequence]) -> None:
        """Queue *sequences*. To cancel one, set its ``cancelled``. Raises ``ExpertOverloaded``."""
        with self._wake:
            if self._closing:
                msg = "the embedded engine is shutting down"
                raise ExpertUnreachable(msg, retryable=False)
            if self.num_waiting + len(sequences) > self._limits.max_waiting:
                msg = f"{self.num_waiting} sequences wait for the embedded experts already; the queue is full"
                raise ExpertOverloaded(msg, retry_after_s=1.0)
            self._inbox.extend(sequences)
            self._wake.notify()

    def _run(self) -> None:
        torch.set_num_threads(self._limits.num_threads)
        with torch.inference_mode():
            while self._take_in():
                for model, batch in tuple(self._batches.items()):
                    self._step(model, batch)
                self._deliver()
        self._fail(ExpertUnreachable("the embedded engine is shutting down", retryable=False), tuple(self._batches.values()))
        self._deliver()

    def _take_in(self) -> bool:
        """Wait for work and sort it by model; False when closing."""
        with self._wake:
            while not (self._inbox or self._batches or self._closing):
                self._wake.wait()
            while self._inbox:
                sequence = self._inbox.popleft()
                batch = self._batches.get(sequence.model)
                if batch is None:
                    batch = self._batches[sequence.model] = Batch(sequence.model, self._limits, self._report)
                batch.waiting.append(sequence)
            return not self._closing

    def _step(self, model: LoadedModel, batch: Batch) -> None:
        try:
            batch.step()
        except Exception as error:  # noqa: BLE001 - logged and told to everyone concerned
            # One model's failure is that of its sequences; the others go on.
            _log.exception("a step of %s failed", model.name)
            # Whoever brought it down would do so again.
            self._fail(ExpertProtocolError(f"{model.name} failed while it answered: {error}", retryable=False), (batch,))
            del self._batches[model]
            return
        if not batch.busy:
            del self._batches[model]

    def _fail(self, error: ExpertError, batches: tuple[Batch, ...]) -> None:
        for batch in batches:
            for sequence in (*batch.live, *batch.waiting):
                if not sequence.done:
                    self._report(sequence, Progress(sequence.index, error=error))

    def _report(self, sequence: Sequence, progress: Progress) -> None:
        if not sequence.cancelled:
            self._outbox.setdefault(sequence.loop, []).append((sequence.events, progress))

    def _deliver(self) -> None:
        outbox, self._outbox = self._outbox, {}
        for loop, news in outbox.items():
            try:
                loop.call_soon_threadsafe(_put_all, news)
            except RuntimeError:  # the loop is closed: nobody is left to read
                _log.debug("the event loop of %d events is gone", len(news))


def _put_all(news: list[tuple[Events, Progress]]) -> None:
    for events, progress in news:
        events.put_nowait(progress)
