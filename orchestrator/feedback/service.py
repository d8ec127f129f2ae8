"""Takes feedback, follows the log that every process writes to, and teaches the routers that can learn."""

from __future__ import annotations

import asyncio
import logging
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from domain.errors import ConsiliumError
from domain.feedback import Feedback, FeedbackView
from domain.polling import keep_looking
from orchestrator.feedback.monitor import Alarm, Monitor, MonitorLimits, fold, learnt_of
from orchestrator.feedback.ports import FeedbackLog, OnlineLearner

log = logging.getLogger(__name__)

OnAlarm = Callable[[Alarm], None]


@dataclass(frozen=True, slots=True)
class FeedbackLimits:
    """Bounds."""

    max_events: int = 20_000
    """Events that are learnt from: the last so many. Older ones stay in the log and count for nothing, which is how feedback is
    forgotten; reading them at the start takes about a second."""
    monitor: MonitorLimits = MonitorLimits()


class FeedbackService:
    """One process's part. ``view`` is what routers read; nothing on a request's path waits for it."""

    def __init__(
        self,
        events: FeedbackLog,
        *,
        encoder_id: Callable[[], str | None] = lambda: None,
        limits: FeedbackLimits | None = None,
        on_alarm: OnAlarm = lambda _alarm: None,
    ) -> None:
        """*encoder_id*: whose vectors learners take; events with another's are not taught. *on_alarm* hears what this process learns
        after its start."""
        self._log, self._encoder_id = events, encoder_id
        self._learners: tuple[OnlineLearner, ...] = ()
        self._limits, self._on_alarm = limits or FeedbackLimits(), on_alarm
        self._view = FeedbackView()
        self._monitor = Monitor(self._limits.monitor)
        self._events: list[Feedback] = []
        self._loaded = False
        self._following = asyncio.Lock()
        self._taught: dict[str, tuple[int, int]] = {}
        """By learner: the fit that was taught, and up to which event."""
        self.num_given = self.num_rolled_back = self.num_alarms = self.num_taught = 0
        """Since the start of this process."""

    def teach(self, learners: Sequence[OnlineLearner]) -> None:
        """These routers learn from what users say, from the next ``refresh`` on."""
        self._learners = tuple(learners)

    @property
    def view(self) -> FeedbackView:
        return self._view

    async def give(self, event: Feedback) -> Feedback:
        """Keep and learn it. Raises as ``FeedbackLog.add``."""
        kept = await self._log.add(event)
        self.num_given += kept.sequence > self._view.version
        await self.refresh()
        return kept

    async def roll_back(self, feedback_id: str) -> Feedback:
        """Take it back, and everything that was learnt from it. Raises ``NotFound``."""
        kept = await self._log.roll_back(feedback_id)
        self.num_rolled_back += 1
        await self.refresh()
        return kept

    async def refresh(self) -> FeedbackView:
        """See what any process has added or taken back."""
        async with self._following:
            if not self._loaded:
                await self._load()
            else:
                await self._follow()
            await self._teach()
        return self._view

    async def reload(self) -> FeedbackView:
        """Read the log anew: what has left it is forgotten."""
        async with self._following:
            await self._load()
            await self._teach()
        return self._view

    async def keep_up(self, every_s: float) -> None:
        """``refresh`` again and again, until cancelled."""
        await keep_looking(self.refresh, every_s, what="feedback", log=log)

    async def _load(self) -> None:
        version, events = await self._log.newest(self._limits.max_events)
        # Off the event loop: it takes about a second for as many as there may be.
        monitor, learnt = await asyncio.to_thread(fold, events, self._limits.monitor)
        self._forget_taught(unless=self._events, now=events)
        self._monitor, self._events, self._view, self._loaded = monitor, learnt, monitor.view(version), True

    async def _follow(self) -> None:
        version, changed = await self._log.since(self._view.version)
        if version == self._view.version:
            return
        last = self._events[-1].sequence if self._events else 0
        if any(event.sequence <= last or not event.counts for event in changed):  # something was taken back
            await self._load()
            return
        for event in changed:
            taken = self._monitor.take(event)
            self.num_alarms += len(taken.alarms)
            for alarm in taken.alarms:
                log.warning("the expert %s answers %s", alarm.expert_id, "worse than it used to" if alarm.drifted else "as before again")
                self._on_alarm(alarm)
            self._events.append(learnt_of(event, taken))
        del self._events[: -self._limits.max_events]
        self._view = self._monitor.view(version)

    def _forget_taught(self, *, unless: Sequence[Feedback], now: Sequence[Feedback]) -> None:
        """Let the learners begin anew where something that they were taught does not count any more."""
        counting = {event.id for event in now}
        if not self._loaded or all(event.id in counting for event in unless):
            return
        self._taught.clear()

    async def _teach(self) -> None:
        """Bring every learner up to date: with what is new, or with everything after a fit of its own."""
        encoder_id = self._encoder_id() if self._learners else None
        for learner in self._learners:
            fitted = learner.fitted
            if not fitted:
                continue
            known, last = self._taught.get(learner.name, (0, 0))
            start = last if known == fitted else 0
            if known != fitted:
                # Something was taken back, or a fit came while it was taught and knows a part of the lessons: nothing may count twice.
                await learner.reset()
            for event in self._events[bisect_right(self._events, start, key=lambda event: event.sequence) :]:
                if event.vector is None or event.encoder_id != encoder_id or not event.scores:
                    continue
                try:
                    self.num_taught += await learner.learn(floats_of(event.vector), event.scores)
                except ConsiliumError as error:
                    log.warning("the router %s could not learn from feedback %s: %s", learner.name, event.id, error)
            self._taught[learner.name] = (fitted, self._events[-1].sequence if self._events else 0)


def floats_of(vector: bytes) -> tuple[float, ...]:
    """(D) of float16, little-endian."""
    return struct.unpack(f"<{len(vector) // 2}e", vector)
