"""A bucket as one stream of concurrent calls, so that its server always has a batch to fill."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from domain.deadline import Clock
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
from orchestrator.batch.line import NothingToAggregate
from orchestrator.batch.plan import due_in
from orchestrator.batch.together import together
from orchestrator.batch.work import BatchWork, BudgetSpent, Ready
from orchestrator.dispatch import run_call
from orchestrator.ports import Workers

_BUSY = frozenset({ExpertOverloaded.code, ExpertUnavailable.code})
"""Says nothing about the call: there are too many, or its expert rests."""
MAY_PASS = _BUSY | {ExpertUnreachable.code, ExpertTimeout.code, ExpertProtocolError.code}
"""Failures after which the same call may succeed."""

_FEED_CALLS = 64
"""Calls that are made ready together: reading their lines takes about 10 ms, in which no call ends."""

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
        self.failed: list[tuple[Ready, ExpertFailure]] = []
        """Calls that may be made again, with what they failed with."""


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
        clock: Clock = time.monotonic,
    ) -> None:
        """*max_in_flight*: calls that the expert takes at once."""
        self._bucket, self._work, self._workers, self._limits = bucket, work, workers, limits
        self._num_lanes = max(1, min(max_in_flight, limits.max_bucket_calls))
        self._on_settled, self._sleep, self._clock = on_settled, sleep, clock
        self._attempts: Counter[int] = Counter()
        self._last: dict[int, ExpertFailure] = {}
        """Of calls that failed and are tried again, with what."""

    async def run(self) -> BucketReport:
        """Return when nothing of the bucket is due any more, and what was answered is durable.

        Raises ``BudgetSpent`` when the calls that ran have ended, and ``StorageError`` when the journal cannot be written for good.
        Cancelling it cancels its calls.
        """
        num_calls, seconds, pause_s, away_since = 0, 0.0, self._limits.first_pause_s, self._clock()
        while due := list(due_in(self._bucket, self._work.progress)):
            began = time.perf_counter()
            done = await self._round(due)
            num_calls, seconds = num_calls + done.num_calls, seconds + time.perf_counter() - began
            is_away = not done.num_settled
            await self._count_attempts(done, is_away=is_away)
            await self._work.finish()
            if done.is_spent:
                raise BudgetSpent
            if not (left := list(due_in(self._bucket, self._work.progress))):
                break
            if not is_away:
                away_since, pause_s = self._clock(), self._limits.first_pause_s
            elif self._clock() - away_since >= self._limits.max_outage_s:
                await self._give_up(left)
                break
            asked_s = max((failure.retry_after_s or 0.0 for _, failure in done.failed), default=0.0)
            await self._sleep(min(max(pause_s, asked_s), max(pause_s, self._limits.max_outage_s)))
            pause_s = min(2 * pause_s, self._limits.max_pause_s)
        await self._work.finish()
        return BucketReport(num_calls, seconds)

    async def _count_attempts(self, done: _Round, *, is_away: bool) -> None:
        """A call whose answer is no answer, or that alone finds nobody there, is at fault itself. A server that is down or busy must not
        end those that wait for it: ``max_outage_s`` does."""
        for ready, failure in done.failed:
            self._last[ready.call] = failure
            is_down = is_away and failure.code == ExpertUnreachable.code
            self._attempts[ready.call] += failure.code not in _BUSY and not is_down
            if self._attempts[ready.call] >= self._limits.max_attempts:
                await self._settle(ready, failure)

    async def _round(self, due: Sequence[int]) -> _Round:
        this, queue = _Round(), asyncio.Queue[Ready | None](2 * self._num_lanes)

        async def feed() -> None:
            for start in range(0, len(due), _FEED_CALLS):
                if this.is_closed:
                    break
                for ready in await self._work.ready(due[start : start + _FEED_CALLS]):
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
        try:
            self._work.require_rights()
        except RequestError as error:
            this.num_settled += 1
            await self._work.refuse(ready, error)
            self._on_settled()
            return
        outcome = await self._outcome(ready, this)
        if isinstance(outcome, ExpertFailure) and outcome.code in MAY_PASS:
            this.failed.append((ready, outcome))
            this.is_closed = this.is_closed or outcome.code in _BUSY  # nothing more is sent until it has had its pause
            return
        this.num_settled += 1
        await self._settle(ready, outcome)

    async def _settle(self, ready: Ready, outcome: Outcome | None) -> None:
        self._last.pop(ready.call, None)
        await self._work.settle(ready, outcome)
        self._on_settled()

    async def _outcome(self, ready: Ready, this: _Round) -> Outcome | None:
        try:
            call = self._work.expert_call(ready)
        except NothingToAggregate:
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
