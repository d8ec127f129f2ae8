"""Run calls, all at once; one outcome per call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from domain.errors import ExpertError, ExpertTimeout
from domain.plan import Candidate, ExpertCall, ExpertFailure, Outcome
from orchestrator.guard import failure_of
from orchestrator.ports import Workers


async def run_call(call: ExpertCall, workers: Workers) -> Outcome:
    """One outcome of *call*. An ``ExpertError`` becomes an ``ExpertFailure``; anything else is a bug and propagates."""
    started = time.perf_counter()
    try:
        # The worker keeps the deadline itself; this one is for a worker that does not.
        async with asyncio.timeout(call.deadline.remaining_s + 1.0):
            return await workers.complete(call)
    except ExpertError as error:
        return failure_of(call, error, time.perf_counter() - started)
    except TimeoutError:
        late = ExpertTimeout("no answer before the request's deadline")
        return failure_of(call, late, time.perf_counter() - started)


async def dispatch(
    calls: Sequence[ExpertCall],
    workers: Workers,
    *,
    on_outcome: Callable[[Outcome], None],
    on_cancelled: Callable[[ExpertCall, float], None],
) -> list[Outcome]:
    """Run *calls* concurrently; outcomes in the order of *calls*. Cancelling this cancels every call; each one that was still
    running is told to *on_cancelled* with its seconds."""

    async def one(call: ExpertCall) -> Outcome:
        began = time.perf_counter()
        try:
            outcome = await run_call(call, workers)
        except asyncio.CancelledError:
            on_cancelled(call, time.perf_counter() - began)
            raise
        on_outcome(outcome)
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(call)) for call in calls]
    return [task.result() for task in tasks]


def candidates_of(outcomes: Sequence[Outcome]) -> list[Candidate]:
    return [outcome for outcome in outcomes if isinstance(outcome, Candidate)]


def failures_of(outcomes: Sequence[Outcome]) -> list[ExpertFailure]:
    return [outcome for outcome in outcomes if isinstance(outcome, ExpertFailure)]
