"""Places for calls: how many run at once for one expert, and who waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from domain.deadline import Deadline
from domain.errors import ExpertOverloaded, ExpertTimeout


class _Gate:
    """Places of one expert. First come, first served; the limit may change between calls, with the card."""

    def __init__(self) -> None:
        self.limit = 0
        self.active = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def hand_over(self) -> None:
        """Give free places to those who wait longest."""
        while self.waiting and self.active < self.limit:
            future = self.waiting.popleft()
            if not future.done():
                self.active += 1
                future.set_result(None)


class InFlight:
    """The places of all experts. An expert without calls takes no memory."""

    def __init__(self, max_queued: int) -> None:
        self._max_queued = max_queued
        self._gates: dict[str, _Gate] = {}

    def active(self, expert_id: str) -> int:
        return self._gates[expert_id].active if expert_id in self._gates else 0

    def queued(self, expert_id: str) -> int:
        return len(self._gates[expert_id].waiting) if expert_id in self._gates else 0

    @asynccontextmanager
    async def place(self, expert_id: str, *, limit: int, timeout_s: float, deadline: Deadline) -> AsyncIterator[None]:
        """One of *limit* places. Raises ``ExpertOverloaded`` when none was free for *timeout_s* or the queue is full,
        ``ExpertTimeout``, which is not the expert's fault, when *deadline* came first."""
        gate = self._gates.setdefault(expert_id, _Gate())
        gate.limit = max(1, limit)
        try:
            await self._enter(gate, expert_id, timeout_s, deadline)
            try:
                yield
            finally:
                gate.active -= 1
                gate.hand_over()
        finally:
            if not gate.active and not gate.waiting:
                self._gates.pop(expert_id, None)

    async def _enter(self, gate: _Gate, expert_id: str, timeout_s: float, deadline: Deadline) -> None:
        gate.hand_over()  # the limit may have grown
        if gate.active < gate.limit:
            gate.active += 1
            return
        if len(gate.waiting) >= self._max_queued:
            msg = f"expert {expert_id!r} has {gate.active} calls running and {len(gate.waiting)} waiting; its queue is full"
            raise ExpertOverloaded(msg, retry_after_s=1.0)
        future = asyncio.get_running_loop().create_future()
        gate.waiting.append(future)
        left = deadline.remaining_s
        try:
            async with asyncio.timeout(min(timeout_s, left)):
                await future
        except BaseException as error:
            if future.done() and not future.cancelled():  # the place came in the same moment: give it on
                gate.active -= 1
                gate.hand_over()
            else:
                with suppress(ValueError):
                    gate.waiting.remove(future)
            if isinstance(error, TimeoutError):
                if left < timeout_s:
                    msg = f"no place for a call to expert {expert_id!r} before the request's deadline ({gate.limit} are running)"
                    raise ExpertTimeout(msg, expert_at_fault=False) from error
                msg = f"no place for a call to expert {expert_id!r} within {timeout_s:.3g} s ({gate.limit} are running)"
                raise ExpertOverloaded(msg, retry_after_s=1.0) from error
            raise
