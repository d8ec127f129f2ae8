"""A bucket as one stream of concurrent calls, so that its server always has a batch to fill."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from domain.errors import (
    ExpertOverloaded,
    ExpertProtocolError,
    ExpertTimeout,
    ExpertUnavailable,
    ExpertUnreachable,
    RequestError,
)
from domain.plan import ExpertFailure, Outcome
from orchestrator.batch.buckets import Bucket
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.plan import due_in
from orchestrator.batch.together import together
from orchestrator.batch.work import BatchWork, BudgetSpent, Ready
from orchestrator.dispatch import run_call
from orchestrator.ports import Workers

MAY_PASS = frozenset({ExpertUnreachable.code, ExpertTimeout.code, ExpertUnavailable.code, ExpertOverloaded.code, ExpertProtocolError.code})
"""Failures after which the same call may succeed: the server is down, or busy."""

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class BucketReport:
    """What a bucket took. ``seconds`` are of the rounds in which calls ran, without the pauses between them."""

    num_calls: int
    seconds: float


class _Round:
    """Once through what is due. Ends early when the expert cannot be called at all at the moment."""

    def __init__(self) -> None:
        self.num_calls = self.num_settled = 0
        self.is_closed = self.is_spent = False


class BucketRun:
    """Makes every due call of one bucket, in rounds: what failed in a way that may pass is tried again after a pause."""

    def __init__(
        self,
        bucket: Bucket,
        work: BatchWork,
        workers: Workers,
        limits: BatchLimits,
        *,
        max_in_flight: int,
        on_settled: Callable[[], None] = lambda: None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """*max_in_flight*: calls that the expert takes at once."""
        self._bucket, self._work, self._workers, self._limits = bucket, work, workers, limits
        self._num_lanes = max(1, min(max_in_flight, limits.max_bucket_calls))
        self._on_settled, self._sleep = on_settled, sleep
        self._attempts: Counter[int] = Counter()
        self._last: dict[int, ExpertFailure] = {}
        """Of calls that failed and are tried again, with what."""

    async def run(self) -> BucketReport:
        """Return when nothing of the bucket is due any more, and what was answered is durable.

        Raises ``BudgetSpent`` when the calls that ran have ended, and ``StorageError`` when the journal cannot be written for good.
        Cancelling it cancels its calls.
        """
        num_calls, seconds, num_idle, pause_s = 0, 0.0, 0, self._limits.first_pause_s
        while due := list(due_in(self._bucket, self._work.progress)):
            began = time.perf_counter()
            done = await self._round(due)
            num_calls, seconds = num_calls + done.num_calls, seconds + time.perf_counter() - began
            await self._work.finish()
            if done.is_spent:
                raise BudgetSpent
            if not (left := list(due_in(self._bucket, self._work.progress))):
                break
            num_idle = 0 if done.num_settled else num_idle + 1
            if num_idle >= self._limits.max_idle_rounds:
                await self._give_up(left)
                break
            pause_s = self._limits.first_pause_s if done.num_settled else pause_s
            await self._sleep(pause_s)
            pause_s = min(2 * pause_s, self._limits.max_pause_s)
        await self._work.finish()
        return BucketReport(num_calls, seconds)

    async def _round(self, due: Sequence[int]) -> _Round:
        this, queue = _Round(), asyncio.Queue[Ready | None](2 * self._num_lanes)

        async def feed() -> None:
            size = max(self._limits.chunk_lines, self._num_lanes)
            for start in range(0, len(due), size):
                if this.is_closed:
                    break
                for ready in await self._work.ready(due[start : start + size]):
                    await queue.put(ready)
                if self._work.num_over >= self._limits.chunk_lines:  # results come in as the round goes on, not at its end
                    await self._work.finish()
            for _ in range(self._num_lanes):
                await queue.put(None)

        async def lane() -> None:
            while (ready := await queue.get()) is not None:
                if not this.is_closed:
                    await self._one(ready, this)

        await together(feed(), *(lane() for _ in range(self._num_lanes)))
        return this

    async def _one(self, ready: Ready, this: _Round) -> None:
        if self._work.is_spent:  # the calls of the other lanes are paid for: they may end
            this.is_closed = this.is_spent = True
            return
        outcome = await self._outcome(ready, this)
        if isinstance(outcome, ExpertFailure) and outcome.code in MAY_PASS:
            self._attempts[ready.call] += outcome.called
            self._last[ready.call] = outcome
            this.is_closed = this.is_closed or not outcome.called
            if self._attempts[ready.call] < self._limits.max_attempts:
                return
        self._last.pop(ready.call, None)
        await self._work.settle(ready, outcome)
        this.num_settled += 1
        self._on_settled()

    async def _outcome(self, ready: Ready, this: _Round) -> Outcome | None:
        try:
            call = self._work.expert_call(ready)
        except LookupError:
            return None
        except RequestError as error:
            return ExpertFailure(self._bucket.expert_id, error.code, error.message, expert_at_fault=False)
        outcome = await run_call(call, self._workers)
        if not isinstance(outcome, ExpertFailure) or outcome.called:
            this.num_calls += 1
            self._work.counted(1)
        return outcome

    async def _give_up(self, left: Sequence[int]) -> None:
        """What is due still fails, each call with what it failed with last."""
        failures: dict[ExpertFailure, list[int]] = {}
        unknown = ExpertFailure(self._bucket.expert_id, ExpertUnavailable.code, "the expert could not be called", expert_at_fault=False)
        known = next(reversed(self._last.values()), unknown)
        for call in left:
            failures.setdefault(self._last.get(call, known), []).append(call)
        for failure, calls in failures.items():
            await self._work.fail(calls, failure)
