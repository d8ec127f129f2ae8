"""Which failures are tried again, and after how long."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator

import stamina

from domain.deadline import Deadline
from domain.errors import ExpertError
from domain.quoting import shortened
from workers.limits import PoolLimits

_SHOWN = 300
"""Letters of an error that the log shows."""
log = logging.getLogger(__name__)

# Its own line for each retry names neither the expert nor the error.
stamina.instrumentation.set_on_retry_hooks(())


def attempts(limits: PoolLimits, deadline: Deadline, expert_id: str) -> AsyncIterator[stamina.Attempt]:
    """Attempts for one call of the expert: ``async for attempt in attempts(…): with attempt: …``.

    Only failures that say ``retryable`` are tried again. The expert's own ``Retry-After`` is kept, otherwise the wait
    doubles, jittered by half; a wait that does not fit before *deadline* ends the attempts with the failure itself.
    """
    num_failed = 0

    def wait_s(error: Exception) -> float | bool:
        nonlocal num_failed
        if not isinstance(error, ExpertError) or not error.retryable:
            return False
        num_failed += 1
        wait = error.retry_after_s
        if wait is None:
            longest = min(limits.retry_wait_max_s, limits.retry_wait_initial_s * 2 ** (num_failed - 1))
            wait = longest * random.uniform(0.5, 1)
        if wait >= deadline.remaining_s:
            return False
        if num_failed < limits.max_attempts:
            log.warning(
                "expert %s, attempt %d of %d: %s: %s; again in %.1f s",
                expert_id, num_failed, limits.max_attempts, error.code, shortened(error.message, _SHOWN), wait,
            )  # fmt: skip
        return float(wait)

    return stamina.retry_context(on=wait_s, attempts=limits.max_attempts, timeout=None).__aiter__()
