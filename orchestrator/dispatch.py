"""Run calls, all at once; one outcome per call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from domain.errors import ExpertError, ExpertTimeout
from domain.plan import ExpertCall, ExpertFailure, Outcome
from domain.time_limit import TimeLimit
from orchestrator.aggregation.fallback import is_answer
from orchestrator.guard import failure_of
from orchestrator.ports import Workers

GIVEN_UP = "given_up"
"""Code of a call that was ended because enough others had answered."""


async def run_call(call: ExpertCall, workers: Workers) -> Outcome:
    """One outcome of *call*. An ``ExpertError`` becomes an ``ExpertFailure``; anything else is a bug and propagates."""
    started = time.perf_counter()
    try:
        # The worker keeps the deadline itself; this one is for a worker that does not.
        with TimeLimit(call.deadline.remaining_s + 1.0):
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
    on_outcome: Callable[[ExpertCall, Outcome], None],
    on_cancelled: Callable[[ExpertCall, float], None],
    quorum: int | None = None,
    quorum_of: int | None = None,
) -> list[Outcome]:
    """Run *calls* concurrently; outcomes in the order of *calls*. Cancelling this cancels every call; each one that was still
    running is told to *on_cancelled* with its seconds. When *quorum* of them (of the first *quorum_of*, where that
    is given) have answered, the others are given up."""

    async def one(call: ExpertCall) -> Outcome:
        began = time.perf_counter()
        try:
            outcome = await run_call(call, workers)
        except asyncio.CancelledError:
            on_cancelled(call, time.perf_counter() - began)
            raise
        on_outcome(call, outcome)
        return outcome

    if len(calls) == 1:  # nothing to run beside it, so it needs no task of its own
        return [await one(calls[0])]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(call)) for call in calls]
        given_up = await _others_than(quorum, tasks, tasks[:quorum_of]) if quorum is not None and quorum < len(calls) else ()
    why = f"given up when {quorum} of {len(tasks[:quorum_of])} had answered"
    return [
        ExpertFailure(call.expert.id, GIVEN_UP, why, expert_at_fault=False) if task in given_up and task.cancelled() else task.result()
        for call, task in zip(calls, tasks, strict=True)
    ]


async def _others_than(
    quorum: int, tasks: Sequence[asyncio.Task[Outcome]], counted: Sequence[asyncio.Task[Outcome]]
) -> set[asyncio.Task[Outcome]]:
    """Those of *tasks* that still run when *quorum* of *counted* have come to an answer; they are cancelled."""
    running = set(tasks)
    while running and sum(_has_answered(task) for task in counted) < quorum:
        _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in running:
        task.cancel()
    return running


def _has_answered(task: asyncio.Task[Outcome]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None and is_answer(task.result())


def failures_of(outcomes: Sequence[Outcome]) -> list[ExpertFailure]:
    return [outcome for outcome in outcomes if isinstance(outcome, ExpertFailure)]
