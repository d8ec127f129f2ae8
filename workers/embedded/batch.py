"""The live sequences of one model, which advance together."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from domain.errors import ExpertProtocolError
from workers.embedded.model import LoadedModel
from workers.embedded.sequence import Progress, Sequence
from workers.limits import EmbeddedLimits

_log = logging.getLogger(__name__)

Report = Callable[[Sequence, Progress], None]


class Batch:
    """Continuous batching: sequences join at any step and leave at any step. All methods run on the engine's thread.

    Invariant: sequence i of ``live`` owns row i of the cache, and its last token is not in the cache yet.
    """

    def __init__(self, model: LoadedModel, limits: EmbeddedLimits, report: Report) -> None:
        self._model, self._limits, self._report = model, limits, report
        self._cache = model.decoder.new_cache()
        self.waiting: deque[Sequence] = deque()
        self.live: list[Sequence] = []

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.live)

    def step(self) -> None:
        """Drop who is cancelled, let in who waits, and advance everybody by one token."""
        self._retire()
        if joined := self._admit():
            first_row = len(self.live)
            self.live += joined  # before anything can fail, so that nobody is forgotten
            self._cache.reserve(len(self.live), max(len(sequence.prompt) for sequence in joined) + 1)
            logits = self._model.decoder.prefill(self._cache, first_row, [sequence.prompt for sequence in joined])
            self._advance(joined, logits)
            self._retire()
        if self.live:
            positions = [sequence.position for sequence in self.live]
            self._cache.reserve(len(self.live), max(positions) + 1)
            logits = self._model.decoder.step(self._cache, [sequence.last_token for sequence in self.live], positions)
            self._advance(self.live, logits)
            self._retire()
        if not self.live:
            self._cache.clear()

    def _admit(self) -> list[Sequence]:
        """Those who join now: as many as there are places, and as prefill may read at once (one at least)."""
        joined: list[Sequence] = []
        longest = 0
        while self.waiting and len(self.live) + len(joined) < self._limits.max_batch:
            longest = max(longest, len(self.waiting[0].prompt))
            if joined and longest * (len(joined) + 1) > self._limits.max_prefill_tokens:
                break
            joined.append(self.waiting.popleft())
        return joined

    def _advance(self, sequences: list[Sequence], logits: Any) -> None:
        likeliest: list[int] = logits.argmax(-1).tolist()
        for i, sequence in enumerate(sequences):
            try:
                token, logprobs = (likeliest[i], None) if sequence.plain else sequence.choose(logits[i].numpy())
                progress = sequence.take(token, logprobs)
            except Exception as error:  # noqa: BLE001 - logged and told to the one concerned
                # The model has done its part for everyone: what goes wrong from here on is this request's own.
                _log.warning("a sequence of %s failed", self._model.name, exc_info=True)
                msg = f"{self._model.name} could not go on with this answer: {error}"
                progress = sequence.fail(ExpertProtocolError(msg, retryable=False, expert_at_fault=False))
            if progress is not None:
                self._report(sequence, progress)

    def _retire(self) -> None:
        """Free the rows of finished and cancelled sequences; the last row fills each gap. Who waits and was cancelled goes too, or it would
        take a place in the queue until its turn."""
        if any(sequence.cancelled for sequence in self.waiting):
            self.waiting = deque(sequence for sequence in self.waiting if not sequence.cancelled)
        for row in range(len(self.live) - 1, -1, -1):
            if self.live[row].done:
                last = self.live.pop()
                if row < len(self.live):
                    self._cache.move(len(self.live), row, last.position)
                    self.live[row] = last
