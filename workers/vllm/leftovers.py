"""Ending processes of servers that no shim looks after any more."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Collection

from domain.deadline import Deadline
from domain.errors import ExpertTimeout
from workers.vllm.limits import VllmLimits
from workers.vllm.procfs import MarkedProcess, marked

_POLL_S = 0.1


async def end_marked(beginning: str, limits: VllmLimits, *, spare: Collection[str] = ()) -> int:
    """End every process whose mark begins so and is none of *spare*: first politely, then by SIGKILL. Returns how many there were.

    Raises ``ExpertTimeout`` when some are still there after that.
    """
    first = await _found(beginning, spare)
    left = first
    for number, patience_s in ((signal.SIGTERM, limits.stop_grace_s), (signal.SIGKILL, limits.kill_timeout_s)):
        deadline = Deadline.after(patience_s)
        told: set[MarkedProcess] = set()
        while left:
            for process in left:
                if process not in told:  # also what was started meanwhile
                    process.identity.send(number)
                    told.add(process)
            if deadline.expired:
                break
            await asyncio.sleep(min(_POLL_S, deadline.remaining_s))
            left = await _found(beginning, spare)
    if left:
        pids = ", ".join(str(process.identity.pid) for process in left)
        raise ExpertTimeout(f"processes {pids} of a vLLM server could not be killed within {limits.kill_timeout_s:g} s")
    return len(first)


async def _found(beginning: str, spare: Collection[str]) -> list[MarkedProcess]:
    return [process for process in await asyncio.to_thread(marked, beginning) if process.mark not in spare]
