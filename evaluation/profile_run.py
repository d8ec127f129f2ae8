"""A profile run: experts answer labelled questions, and every graded answer is recorded as it comes.

An expert that fails a question (down, too slow, refuses) is recorded with an error. That is no wrong answer: it says
nothing about skill, so it counts in no profile, and the question is asked again when the run is resumed. An expert that
keeps failing is given up for this run, with the reason.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from domain.deadline import Clock
from domain.errors import InvalidRequest
from domain.evaluation import QuestionOutcome
from domain.experts import ExpertCard
from domain.skills import LabelledQuestion
from evaluation.graders import Grader
from evaluation.labelled import messages_of
from evaluation.summary import ExpertSummary, summarise
from evaluation.sweep import Sweep, SweepLimits, Task
from orchestrator.ports import Workers


class OutcomeStore(Protocol):
    """Where outcomes are kept."""

    async def outcomes(self, run_id: str | None = None) -> Sequence[QuestionOutcome]:
        """What run *run_id* has so far."""
        ...

    async def record_outcomes(self, run_id: str, outcomes: Sequence[QuestionOutcome]) -> object:
        """Keep *outcomes*; one per run, expert and question, a later one in place of an earlier one."""
        ...


@dataclass(frozen=True, slots=True)
class ProfileProgress:
    """Where one expert of a run stands; told after every answer, and once at the start."""

    expert_id: str
    num_done: int
    """Answered or failed, those of earlier attempts included."""
    num_total: int
    num_correct: int
    num_failed: int
    stopped: str | None = None


@dataclass(frozen=True, slots=True)
class ProfileReport:
    """What a run came to, earlier attempts included."""

    run_id: str
    experts: Mapping[str, ExpertSummary] = field(default_factory=dict)
    num_asked: int = 0
    """Calls of this attempt."""

    @property
    def stopped(self) -> dict[str, str]:
        """Experts that were given up, with the reason."""
        return {expert_id: summary.stopped for expert_id, summary in self.experts.items() if summary.stopped}

    @property
    def complete(self) -> bool:
        """Whether every expert answered every question."""
        return not any(summary.stopped or summary.num_failed for summary in self.experts.values())


class ProfileRun:
    """One run over *experts* × *questions*; ``execute`` may be called again, after a crash or on failures, to go on.

    Raises ``InvalidRequest`` at once when there is nothing to ask, an id stands twice, or a question cannot be graded
    (``judge`` without a judge). *flush_every* outcomes are written together; cancelling writes what is there first.
    """

    def __init__(
        self,
        run_id: str,
        experts: Sequence[ExpertCard],
        questions: Sequence[LabelledQuestion],
        *,
        workers: Workers,
        store: OutcomeStore,
        grader: Grader | None = None,
        limits: SweepLimits | None = None,
        params: Mapping[str, Any] | None = None,
        on_progress: Callable[[ProfileProgress], None] | None = None,
        flush_every: int = 32,
        clock: Clock = time.monotonic,
    ) -> None:
        grader = grader or Grader()
        _check_distinct("expert", [expert.id for expert in experts])
        _check_distinct("question", [question.id for question in questions])
        for question in questions:
            grader.check(question)
        self._run_id = run_id
        self._experts = tuple(experts)
        self._tasks = tuple(Task(question, messages_of(question)) for question in questions)
        self._store = store
        self._limits = limits or SweepLimits()
        self._sweep = Sweep(workers, grader, self._limits, params=params or {}, name=run_id, clock=clock)
        self._on_progress = on_progress
        self._flush_every = flush_every

    async def execute(self) -> ProfileReport:
        """Ask what has no answer yet, record and report. Raises only what the store raises, and ``CancelledError``."""
        ledger = _Ledger(self._run_id, self._store, self._flush_every)
        await ledger.load(expert_ids={e.id for e in self._experts}, question_ids={t.question.id for t in self._tasks})
        turns = asyncio.Semaphore(self._limits.max_experts)
        num_before = ledger.num_taken
        try:
            async with asyncio.TaskGroup() as group:
                for expert in self._experts:
                    group.create_task(self._measure(expert, ledger, turns))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # one cause is enough; the others were cancelled for it
        finally:
            await ledger.flush_whatever_happens()
        summaries = summarise(ledger.newest.values(), stopped=ledger.stopped)
        ordered = {expert.id: summaries[expert.id] for expert in self._experts if expert.id in summaries}
        return ProfileReport(self._run_id, ordered, num_asked=ledger.num_taken - num_before)

    async def _measure(self, expert: ExpertCard, ledger: _Ledger, turns: asyncio.Semaphore) -> None:
        open_tasks = [task for task in self._tasks if not ledger.has_answer(expert, task.question.id)]
        self._tell(expert.id, ledger)

        async def take(outcome: QuestionOutcome) -> None:
            await ledger.take(outcome)
            self._tell(expert.id, ledger)

        async with turns:
            reason = await self._sweep.ask_all(expert, open_tasks, take)
        if reason is not None:
            ledger.stopped[expert.id] = reason
            self._tell(expert.id, ledger)

    def _tell(self, expert_id: str, ledger: _Ledger) -> None:
        if self._on_progress is None:
            return
        tally = ledger.tallies.get(expert_id, _Tally())
        stopped = ledger.stopped.get(expert_id)
        self._on_progress(ProfileProgress(expert_id, tally.num_done, len(self._tasks), tally.num_correct, tally.num_failed, stopped))


@dataclass(slots=True)
class _Tally:
    """One expert's outcomes, counted as they come."""

    num_done: int = 0
    num_correct: int = 0
    num_failed: int = 0

    def add(self, outcome: QuestionOutcome, sign: int = 1) -> None:
        self.num_done += sign
        self.num_correct += sign * outcome.correct
        self.num_failed += sign * (outcome.error is not None)


class _Ledger:
    """The outcomes of one run, in memory and on their way into the store."""

    def __init__(self, run_id: str, store: OutcomeStore, flush_every: int) -> None:
        self.newest: dict[tuple[str, str], QuestionOutcome] = {}
        self.tallies: dict[str, _Tally] = {}
        self.stopped: dict[str, str] = {}
        self.num_taken = 0
        self._run_id, self._store, self._flush_every = run_id, store, flush_every
        self._unwritten: list[QuestionOutcome] = []
        self._writing = asyncio.Lock()

    async def load(self, *, expert_ids: set[str], question_ids: set[str]) -> None:
        for outcome in await self._store.outcomes(self._run_id):
            if outcome.expert_id in expert_ids and outcome.question_id in question_ids:
                self._put(outcome)

    def has_answer(self, expert: ExpertCard, question_id: str) -> bool:
        """One of the expert as it is now: a run that is resumed after its card was changed asks anew."""
        outcome = self.newest.get((expert.id, question_id))
        is_current = outcome is not None and outcome.expert_fingerprint in (None, expert.fingerprint)
        return outcome is not None and outcome.error is None and is_current

    async def take(self, outcome: QuestionOutcome) -> None:
        self._put(outcome)
        self.num_taken += 1
        self._unwritten.append(outcome)
        if len(self._unwritten) >= self._flush_every:
            await self.flush()

    def _put(self, outcome: QuestionOutcome) -> None:
        key = (outcome.expert_id, outcome.question_id)
        tally = self.tallies.setdefault(outcome.expert_id, _Tally())
        if key in self.newest:
            tally.add(self.newest[key], -1)
        tally.add(outcome)
        self.newest[key] = outcome

    async def flush(self) -> None:
        async with self._writing:
            batch = self._unwritten
            if not batch:
                return
            self._unwritten = []
            try:
                await self._store.record_outcomes(self._run_id, batch)
            except BaseException:
                self._unwritten = batch + self._unwritten
                raise

    async def flush_whatever_happens(self) -> None:
        """Write the rest, also when the run is being cancelled; a second cancellation does not tear it apart either."""
        writing = asyncio.ensure_future(self.flush())
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing], timeout=_FINAL_FLUSH_S)
            raise


_FINAL_FLUSH_S = 10.0
"""Longest wait for the last write after a cancellation; a database that hangs must not hold the process."""


def _check_distinct(what: str, ids: Sequence[str]) -> None:
    if not ids:
        raise InvalidRequest(f"no {what} to measure")
    name, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise InvalidRequest(f"{what} {name!r} is named {times} times")
