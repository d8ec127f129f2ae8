"""Following a log that every process writes to, and teaching routers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from domain.errors import NotFound, StorageError
from domain.feedback import Feedback
from orchestrator.feedback.monitor import Alarm
from orchestrator.feedback.ports import FeedbackLog, OnlineLearner
from orchestrator.feedback.service import FeedbackLimits, FeedbackService, floats_of

VECTOR = b"\x00\x3c\x00\xc0"
"""1 and -2, float16."""


class MemoryLog:
    """A log in memory, as strict as a database."""

    def __init__(self) -> None:
        self.events: dict[str, Feedback] = {}
        self.changed: dict[str, int] = {}
        self.error: StorageError | None = None

    async def add(self, event: Feedback) -> Feedback:
        if event.id in self.events:
            return self.events[event.id]
        return self._put(replace(event, sequence=self._version() + 1))

    async def get(self, feedback_id: str) -> Feedback:
        if feedback_id not in self.events:
            raise NotFound("no")
        return self.events[feedback_id]

    async def roll_back(self, feedback_id: str) -> Feedback:
        return self._put(replace(await self.get(feedback_id), rolled_back_at=1.0))

    async def version(self) -> int:
        return self._version()

    async def newest(self, limit: int) -> tuple[int, Sequence[Feedback]]:
        if self.error is not None:
            raise self.error
        return self._version(), [event for event in self._ordered() if event.counts][-limit:]

    async def since(self, version: int) -> tuple[int, Sequence[Feedback]]:
        if self.error is not None:
            raise self.error
        return self._version(), [event for event in self._ordered() if self.changed[event.id] > version]

    def _put(self, event: Feedback) -> Feedback:
        self.changed[event.id] = self._version() + 1
        self.events[event.id] = event
        return event

    def _version(self) -> int:
        return max(self.changed.values(), default=0)

    def _ordered(self) -> list[Feedback]:
        return sorted(self.events.values(), key=lambda event: event.sequence)


class Learner:
    name = "ridge"

    def __init__(self) -> None:
        self.fitted = 1
        self.lessons: list[tuple[tuple[float, ...], dict[str, float]]] = []
        self.num_resets = 0

    async def learn(self, vector: Sequence[float], scores: Mapping[str, float]) -> bool:
        self.lessons.append((tuple(vector), dict(scores)))
        return True

    async def reset(self) -> None:
        self.num_resets += 1
        self.lessons.clear()


def said(name: str, score: float = 1.0, **changes: Any) -> Feedback:
    made = Feedback(name, f"r-{name}", f"t-{name}", 1.0, {"score": score}, {"a": score}, vector=VECTOR, encoder_id="e")
    return replace(made, **changes)


def service(events: MemoryLog, learner: Learner | None = None, **options: Any) -> FeedbackService:
    made = FeedbackService(events, encoder_id=lambda: "e", **options)
    made.teach([learner] if learner else [])
    return made


def test_the_fakes_are_what_the_service_takes() -> None:
    log: FeedbackLog = MemoryLog()

    assert isinstance(Learner(), OnlineLearner)
    assert log is not None


async def test_what_is_said_is_learnt_at_once_and_once() -> None:
    learner, events = Learner(), MemoryLog()
    one = service(events, learner)

    first, again = await one.give(said("x")), await one.give(said("x"))

    assert first == again
    assert one.view.experts["a"].num_feedback == 1
    assert learner.lessons == [((1.0, -2.0), {"a": 1.0})]
    assert one.num_taught == 1


async def test_what_one_process_is_told_the_others_learn() -> None:
    events = MemoryLog()
    one, other = service(events), service(events, learner := Learner())
    await other.refresh()
    await one.give(said("x"))
    await other.refresh()

    assert other.view == one.view
    assert len(learner.lessons) == 1


async def test_taking_something_back_leaves_what_would_be_there_without_it() -> None:
    events, learner = MemoryLog(), Learner()
    one = service(events, learner)
    for name in ("x", "y", "z"):
        await one.give(said(name, score=float(name != "y")))
    num_resets = learner.num_resets
    await one.roll_back("y")

    assert one.view.experts["a"].overall.accuracy == 1.0
    assert learner.num_resets == num_resets + 1
    assert learner.lessons == [((1.0, -2.0), {"a": 1.0})] * 2


async def test_a_rollback_elsewhere_is_noticed() -> None:
    events = MemoryLog()
    one, other = service(events), service(events)
    await one.give(said("x"))
    await other.refresh()
    await one.roll_back("x")
    await other.refresh()

    assert other.view.experts == {}


async def test_a_router_is_taught_everything_after_a_fit_of_its_own() -> None:
    learner = Learner()
    one = service(MemoryLog(), learner)
    learner.fitted = 0
    await one.give(said("x"))
    assert learner.lessons == [], "there is no model yet"

    learner.fitted = 1
    await one.refresh()
    await one.refresh()
    assert len(learner.lessons) == 1

    learner.fitted, learner.lessons = 2, []
    await one.refresh()
    assert len(learner.lessons) == 1


async def test_a_fit_that_comes_while_its_router_is_taught_leaves_nothing_counted_twice() -> None:
    """The new model hears the rest of the lessons, and then all of them."""

    class Refitted(Learner):
        async def learn(self, vector: Sequence[float], scores: Mapping[str, float]) -> bool:
            if self.fitted == 1:
                self.fitted, self.lessons = 2, []
            return await super().learn(vector, scores)

    events, learner = MemoryLog(), Refitted()
    for name in ("x", "y"):
        await events.add(said(name))
    one = service(events, learner)
    await one.refresh()
    await one.refresh()
    await one.refresh()

    assert learner.lessons == [((1.0, -2.0), {"a": 1.0})] * 2


async def test_what_another_encoder_saw_or_nobody_kept_is_not_taught() -> None:
    learner = Learner()
    one = service(MemoryLog(), learner)
    await one.give(said("x", encoder_id="other"))
    await one.give(said("y", vector=None, encoder_id=None))

    assert learner.lessons == []
    assert one.view.experts["a"].num_feedback == 2


async def test_only_the_last_events_are_learnt_from() -> None:
    events = MemoryLog()
    for number in range(10):
        await events.add(said(str(number)))
    one = service(events, limits=FeedbackLimits(max_events=4))
    await one.refresh()

    assert one.view.experts["a"].num_feedback == 4


async def test_alarms_are_told() -> None:
    heard: list[Alarm] = []
    one = service(MemoryLog(), on_alarm=heard.append)
    for number in range(40):
        await one.give(said(f"good-{number}"))
    for number in range(6):
        await one.give(said(f"bad-{number}", 0.0))

    assert [(alarm.expert_id, alarm.drifted) for alarm in heard] == [("a", True)]
    assert one.view.drifted == {"a"}
    assert one.num_alarms == 1


async def test_a_database_that_is_away_leaves_what_is_known(caplog: pytest.LogCaptureFixture) -> None:
    events = MemoryLog()
    one = service(events)
    await one.give(said("x"))
    events.error = StorageError("gone")
    following = asyncio.create_task(one.keep_up(0.001))
    async with asyncio.timeout(5):
        while "cannot be read" not in caplog.text:
            await asyncio.sleep(0)
    events.error = None
    await events.add(said("y"))
    async with asyncio.timeout(5):
        while one.view.experts["a"].num_feedback < 2:
            await asyncio.sleep(0)
    following.cancel()

    assert caplog.text.count("cannot be read") == 1


def test_vectors_are_halves() -> None:
    assert floats_of(VECTOR) == (1.0, -2.0)
