"""Carries a plan out: loads and turns as the cursor allows them, as many at once as there are slots."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from domain.deadline import Deadline
from domain.errors import ExpertError, ExpertTimeout, NotReady
from domain.plan import CallRole, ExpertFailure
from orchestrator.batch.bucket_run import MAY_PASS, BucketReport, BucketRun, Sleep
from orchestrator.batch.buckets import Bucket
from orchestrator.batch.cursor import PlanCursor
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.news import BatchNews, OnNews, Phase
from orchestrator.batch.plan import BatchPlan, Turn
from orchestrator.batch.ports import Fleet
from orchestrator.batch.progress import CallState
from orchestrator.batch.together import together
from orchestrator.batch.work import BatchWork, BudgetSpent

log = logging.getLogger(__name__)

MakeRun = Callable[[Bucket, Callable[[], None]], BucketRun]
_MIN_CALLS_MEASURED = 8
"""Fewer calls say little about how long a bucket takes."""


class Turns:
    """One plan, carried out once."""

    def __init__(
        self,
        plan: BatchPlan,
        work: BatchWork,
        fleet: Fleet,
        limits: BatchLimits,
        *,
        make_run: MakeRun,
        on_news: OnNews,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """*make_run* gives what makes a bucket's calls; it is told whom to call when one has ended."""
        self._plan, self._work, self._fleet, self._limits, self._make_run, self._on_news = plan, work, fleet, limits, make_run, on_news
        self._sleep = sleep
        self._cursor = PlanCursor(plan.turns, plan.slots)
        self._began = time.perf_counter()
        self._failed: dict[str, ExpertFailure] = {}
        """Servers that could not be loaded, with what their experts' calls fail with."""
        self._working: dict[int, str] = {}
        self._ended: set[int] = set()
        self._is_spent = False
        """The batch's budget: nothing begins any more."""
        self._num_done = self._num_loads_done = 0
        self._planned_s = 0.0
        """How far the plan is, in its own predicted seconds."""

    async def run(self) -> None:
        """Return when every turn has ended. Raises as ``BucketRun.run`` does, ``BudgetSpent`` when those that run have ended, and
        ``NotReady`` when this process cannot start servers for now. Cancelling it cancels everything that runs."""
        running: dict[asyncio.Task[None], tuple[Turn, bool]] = {}
        try:
            while not self._cursor.finished:
                if self._is_spent and all(is_load for _, is_load in running.values()):
                    break
                if not self._is_spent:
                    self._begin_what_may(running)
                self._tell()
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    turn, is_load = running.pop(task)
                    task.result()
                    self._note_end(turn, is_load=is_load)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if self._is_spent:
            raise BudgetSpent
        self._tell()

    def _begin_what_may(self, running: dict[asyncio.Task[None], tuple[Turn, bool]]) -> None:
        for turn in self._cursor.due_loads():
            self._cursor.load_began(turn)
            running[asyncio.create_task(self._load(turn), name=f"load {turn.server}")] = (turn, True)
        for turn in self._cursor.due_turns():
            self._cursor.began(turn)
            running[asyncio.create_task(self._turn(turn), name=f"turn {turn.number}")] = (turn, False)
        for server, _ in self._cursor.leaving():  # while another is loaded: its own load would have to wait for the memory
            self._fleet.release(server)
        self._fleet.expect([turn.server for turn in self._plan.turns if turn.server is not None and turn.number not in self._ended])

    def _note_end(self, turn: Turn, *, is_load: bool) -> None:
        prediction = self._plan.prediction
        if is_load:
            self._cursor.load_ended(turn)
            self._num_loads_done += 1
            self._planned_s = max(self._planned_s, prediction.loads[turn.number].end_s)
        else:
            self._cursor.ended(turn)
            self._ended.add(turn.number)
            self._planned_s = max(self._planned_s, prediction.turns[turn.number].end_s)

    async def _load(self, turn: Turn) -> None:
        """Its server comes up. The residency evicts what the plan needs last; nothing is held while others are waited for."""
        if turn.server is None or not self._has_work(turn):
            return
        self._failed.pop(turn.server, None)
        self._working[-1 - turn.number] = f"loading {turn.server}"
        self._tell()
        try:
            if (error := await self._not_up(turn.server)) is not None:
                self._failed[turn.server] = ExpertFailure("", error.code, error.message, expert_at_fault=error.expert_at_fault)
        finally:
            del self._working[-1 - turn.number]

    async def _not_up(self, server: str) -> ExpertError | None:
        """None when *server* is up; else what its load failed with last, when it fails for good or has failed often enough: that, and not
        that no time was left in the end. One that may pass is waited for as a call's would be: a whole bucket is at stake. Raises
        ``NotReady``."""
        limits, before = self._limits, list[ExpertError]()
        deadline, pause_s, num_failed = Deadline.after(limits.load_timeout_s), limits.first_pause_s, 0
        while True:
            try:
                async with self._fleet.hold(server, deadline):
                    return None
            except ExpertError as error:
                if (why := self._fleet.trouble) is not None:  # the lines are not at fault, and another process may be able to
                    raise NotReady(f"no server can be loaded for now: {why}") from error
                num_failed += 1
                if error.code not in MAY_PASS or num_failed >= limits.max_failed_loads or deadline.expired:
                    return before[-1] if before and deadline.expired and error.code == ExpertTimeout.code else error
                before.append(error)
                log.warning("%s; it is tried again in %g s", error.message, pause_s)
            await self._sleep(min(pause_s, deadline.remaining_s))
            pause_s = min(2 * pause_s, limits.max_pause_s)

    async def _turn(self, turn: Turn) -> None:
        self._working[turn.number] = ", ".join(sorted({bucket.expert_id for bucket in turn.buckets}))
        self._tell()
        try:
            not_loaded = self._failed.get(turn.server or "")
            await together(*(self._bucket(bucket, not_loaded) for bucket in turn.buckets))
        finally:
            del self._working[turn.number]

    async def _bucket(self, bucket: Bucket, not_loaded: ExpertFailure | None) -> None:
        work = self._work
        if not_loaded is not None:
            failure = replace(not_loaded, expert_id=bucket.expert_id)
            await work.fail([call for call in bucket.calls if work.progress[call] is CallState.PENDING], failure)
            await work.finish()
            return
        try:
            report = await self._make_run(bucket, self._call_settled).run()
        except BudgetSpent:
            self._is_spent = True
            return
        self._measure(bucket, report)

    def _measure(self, bucket: Bucket, report: BucketReport) -> None:
        if report.num_calls >= _MIN_CALLS_MEASURED:
            is_aggregation = bucket.role is CallRole.AGGREGATOR
            self._fleet.measured(bucket.expert_id, call_s=report.seconds / report.num_calls, aggregation=is_aggregation)

    def _has_work(self, turn: Turn) -> bool:
        """Whether some call of it may still have to be made. What is left out here is loaded by its first call, if it comes to one."""
        return any(self._work.progress[call] is CallState.PENDING for bucket in turn.buckets for call in bucket.calls)

    def _call_settled(self) -> None:
        self._num_done += 1
        if self._num_done % 16 == 0:
            self._tell()

    def _tell(self) -> None:
        plan = self._plan
        self._on_news(
            BatchNews(
                Phase.RUNNING,
                self._work.progress.counts,
                num_routed=self._work.table.num_lines,
                num_calls=plan.num_calls,
                num_calls_done=self._num_done,
                num_turns=len(plan.turns),
                num_turns_done=len(self._ended),
                num_loads=plan.num_loads,
                num_loads_done=self._num_loads_done,
                working=tuple(self._working.values()),
                left_s=self._left_s(),
            )
        )

    def _left_s(self) -> float:
        """The plan's remaining seconds, stretched as those that have passed were."""
        elapsed, total = time.perf_counter() - self._began, self._plan.prediction.total_s
        if self._planned_s <= 0:
            return max(0.0, total - elapsed)
        return max(0.0, total - self._planned_s) * elapsed / self._planned_s
