"""Which failures are tried again, and after how long."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar, cast

import tenacity

from domain.deadline import Deadline
from domain.errors import ExpertError, ExpertOverloaded
from domain.quoting import shortened
from workers.limits import PoolLimits

_SHOWN = 300
"""Letters of an error that the log shows."""
log = logging.getLogger(__name__)

T = TypeVar("T")


async def retried(
    attempt: Callable[[], Awaitable[T]],
    limits: PoolLimits,
    deadline: Deadline,
    expert_id: str,
    *,
    repeatable: bool = True,
    again: Callable[[], bool] | None = None,
) -> tuple[T, int]:
    """What *attempt* comes to, and how often it was repeated for that. *again* is asked before each repetition whether there may be one.

    Only failures that say ``retryable`` are tried again; of a call that is not *repeatable* only those after which nothing can have
    been done. The expert's own ``Retry-After`` is kept, otherwise the wait doubles, jittered by half; a wait that does not fit before
    *deadline* ends the attempts with the failure itself.

    The library is entered only when the first attempt has failed: it takes a tenth of what a whole call takes, and nearly all calls
    need none of it. It is given failures as values: one that it raises is held by its own frames and holds them, and with them the whole
    request, until the garbage collector looks.
    """
    came = await _outcome(attempt)
    num_attempts = 1
    if _may_try_again(came, repeatable=repeatable):
        first: list[T | ExpertError] = [came]

        async def next_outcome() -> T | ExpertError:
            nonlocal num_attempts
            if first:
                return first.pop()
            num_attempts += 1
            return await _outcome(attempt)

        came = await _retrying(limits, deadline, expert_id, repeatable=repeatable, again=again)(next_outcome)
    try:
        if isinstance(came, ExpertError):
            raise came
        return came, num_attempts - 1
    finally:
        del came  # the failure holds this frame


async def _outcome(attempt: Callable[[], Awaitable[T]]) -> T | ExpertError:
    try:
        return await attempt()
    except ExpertError as error:
        return error


def _may_try_again(came: object, *, repeatable: bool) -> bool:
    return isinstance(came, ExpertError) and came.retryable and (repeatable or isinstance(came, ExpertOverloaded))


def _retrying(
    limits: PoolLimits, deadline: Deadline, expert_id: str, *, repeatable: bool, again: Callable[[], bool] | None
) -> tenacity.AsyncRetrying:
    def wait_s(state: tenacity.RetryCallState) -> float:
        if (asked_s := _failure(state).retry_after_s) is not None:
            return asked_s
        longest: float = min(limits.retry_wait_max_s, limits.retry_wait_initial_s * 2 ** (state.attempt_number - 1))
        return longest * random.uniform(0.5, 1)

    def is_over(state: tenacity.RetryCallState) -> bool:
        if state.attempt_number >= limits.max_attempts or state.upcoming_sleep >= deadline.remaining_s:
            return True
        return again is not None and not again()  # last: it takes the attempt that it allows

    def note(state: tenacity.RetryCallState) -> None:
        error = _failure(state)
        status = "" if error.status is None else f" (HTTP {error.status})"
        attempt = expert_id, state.attempt_number, limits.max_attempts
        log.warning("expert %s, attempt %d of %d: %s%s; again in %.1f s", *attempt, error.code, status, state.upcoming_sleep)
        # The server's words may hold what it was asked, which is nobody's who reads a log.
        log.debug("expert %s, attempt %d of %d: %s", *attempt, shortened(error.message, _SHOWN))

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_result(partial(_may_try_again, repeatable=repeatable)),
        wait=wait_s,
        stop=is_over,
        before_sleep=note,
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )


def _failure(state: tenacity.RetryCallState) -> ExpertError:
    return cast(ExpertError, cast(tenacity.Future, state.outcome).result())
