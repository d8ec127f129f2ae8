"""Asking one expert many questions at once, within bounds, and grading what comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.chat import Message
from domain.deadline import Clock, Deadline
from domain.errors import ExpertAuthFailed, ExpertError
from domain.evaluation import QuestionOutcome
from domain.experts import ExpertCard
from domain.plan import CallRole, ExpertCall
from domain.skills import LabelledQuestion
from evaluation.graders import Grader
from orchestrator.ports import Workers


@dataclass(frozen=True, slots=True)
class SweepLimits:
    """Bounds of a measurement."""

    max_in_flight: int = 16
    """Questions at once per expert; an expert's own ``max_in_flight`` also holds. Enough to fill an embedded batch."""
    max_experts: int = 4
    """Experts measured at once: embedded ones share the host's cores."""
    timeout_s: float = 120.0
    """Longest wait for one answer."""
    max_consecutive_failures: int = 8
    """So many failures in a row, and the expert is given up: it is down, and asking on would only cost time."""


@dataclass(frozen=True, slots=True)
class Task:
    """One question as it is put to an expert."""

    question: LabelledQuestion
    messages: tuple[Message, ...]


Take = Callable[[QuestionOutcome], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Sweep:
    """How to ask: the same for every expert of a measurement."""

    workers: Workers
    grader: Grader
    limits: SweepLimits = SweepLimits()
    role: CallRole = CallRole.CANDIDATE
    params: Mapping[str, Any] = field(default_factory=dict)
    """OpenAI fields for every call, over the card's sampling defaults."""
    name: str = "sweep"
    """Begins the request ids of its calls."""
    clock: Clock = time.monotonic

    async def ask_all(self, expert: ExpertCard, tasks: Sequence[Task], take: Take) -> str | None:
        """Put *tasks* to *expert* and give each outcome to *take* as it comes; why the expert was given up, or None.

        A failing expert or judge makes an outcome with ``error``. Whatever *take* raises, and cancellation, ends the
        calls that are running and is passed on; outcomes that were taken stay taken.
        """
        state = _Attempt(iter(tasks))
        num_lanes = max(1, min(self.limits.max_in_flight, expert.max_in_flight, len(tasks)))
        lanes = [asyncio.ensure_future(self._lane(expert, state, take)) for _ in range(num_lanes)]
        try:
            await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        return state.given_up

    async def _lane(self, expert: ExpertCard, state: _Attempt, take: Take) -> None:
        for task in state.waiting:
            outcome, error = await self._ask(expert, task)
            state.note(error, self.limits.max_consecutive_failures)
            await take(outcome)
            if state.given_up:
                return

    async def _ask(self, expert: ExpertCard, task: Task) -> tuple[QuestionOutcome, ExpertError | None]:
        question = task.question
        started = self.clock()
        answer, correct, failure = "", False, None
        try:
            candidate = await self.workers.complete(self._call(expert, task))
            answered = self.clock()
            answer = candidate.text
            correct = await self.grader.grade(question, answer)
        except ExpertError as error:
            answered, failure = self.clock(), error
        outcome = QuestionOutcome(
            expert_id=expert.id,
            question_id=question.id,
            skills=question.skills,
            category=question.category,
            correct=correct,
            answer=answer,
            latency_ms=(answered - started) * 1000,
            error=None if failure is None else f"{failure.code}: {failure.message}",
            expert_fingerprint=expert.fingerprint,
        )
        return outcome, failure

    def _call(self, expert: ExpertCard, task: Task) -> ExpertCall:
        return ExpertCall(
            expert=expert,
            messages=task.messages,
            params={**expert.sampling, **self.params},
            deadline=Deadline.after(self.limits.timeout_s, clock=self.clock),
            request_id=f"{self.name}/{expert.id}/{task.question.id}",
            role=self.role,
        )


@dataclass(slots=True)
class _Attempt:
    """Where the lanes of one expert stand together."""

    waiting: Iterator[Task]
    num_failed_in_a_row: int = 0
    given_up: str | None = None

    def note(self, error: ExpertError | None, max_consecutive_failures: int) -> None:
        if error is None:
            self.num_failed_in_a_row = 0
            return
        self.num_failed_in_a_row += 1
        if isinstance(error, ExpertAuthFailed):
            self.given_up = error.message
        elif self.num_failed_in_a_row >= max_consecutive_failures:
            self.given_up = f"{self.num_failed_in_a_row} failures in a row, the last: {error.message}"
