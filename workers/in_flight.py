"""Places for calls: how many run at once for one expert, and who waits."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from domain.deadline import Clock, Deadline
from domain.errors import ExpertOverloaded, ExpertTimeout

OnWait = Callable[[str, str, float], None]
"""Hears which expert's call of which role has waited how many seconds for its place."""


def unheard(_expert_id: str, _role: str, _seconds: float) -> None:
    """For who does not want to know."""


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


class _Place:
    """A class, not a generator: it is entered for every call, and this takes half the time."""

    __slots__ = ("_deadline", "_expert_id", "_limit", "_max_queued", "_places", "_role", "_timeout_s")

    def __init__(
        self, places: InFlight, expert_id: str, *, limit: int, max_queued: int, timeout_s: float, deadline: Deadline, role: str
    ) -> None:
        self._places, self._expert_id, self._limit, self._max_queued = places, expert_id, limit, max_queued
        self._timeout_s, self._deadline, self._role = timeout_s, deadline, role

    async def __aenter__(self) -> None:
        await self._places.enter(self._expert_id, self._limit, self._max_queued, self._timeout_s, self._deadline, role=self._role)

    async def __aexit__(self, *_: object) -> None:
        self._places.leave(self._expert_id)


class InFlight:
    """The places of all experts, each expert's apart from the others'. An expert without calls takes no memory."""

    def __init__(self, on_wait: OnWait = unheard, clock: Clock = time.monotonic) -> None:
        """*on_wait* hears of each call how long it waited for its place, whether it got one or not."""
        self._gates: dict[str, _Gate] = {}
        self._on_wait, self._clock = on_wait, clock

    def active(self, expert_id: str) -> int:
        return self._gates[expert_id].active if expert_id in self._gates else 0

    def queued(self, expert_id: str) -> int:
        return len(self._gates[expert_id].waiting) if expert_id in self._gates else 0

    def place(self, expert_id: str, *, limit: int, max_queued: int, timeout_s: float, deadline: Deadline, role: str = "") -> _Place:
        """One of *limit* places, for ``async with``. Raises ``ExpertOverloaded`` when none was free for
        *timeout_s* or *max_queued* wait already, ``ExpertTimeout``, which is not the expert's fault, when *deadline* came first."""
        return _Place(self, expert_id, limit=limit, max_queued=max_queued, timeout_s=timeout_s, deadline=deadline, role=role)

    async def enter(self, expert_id: str, limit: int, max_queued: int, timeout_s: float, deadline: Deadline, *, role: str) -> None:
        """Take a place; whoever returns from here has to ``leave``."""
        gate = self._gates.get(expert_id)
        if gate is None:
            gate = self._gates[expert_id] = _Gate()
        gate.limit = max(1, limit)
        if gate.waiting:
            gate.hand_over()  # the limit may have grown
        if gate.active < gate.limit:
            gate.active += 1
            self._on_wait(expert_id, role, 0.0)
            return
        began = self._clock()
        try:
            await self._wait(gate, expert_id, max_queued, timeout_s, deadline)
        except BaseException:
            self._forget_idle(expert_id, gate)
            raise
        finally:
            self._on_wait(expert_id, role, self._clock() - began)

    def leave(self, expert_id: str) -> None:
        """Give the place to who waits longest."""
        gate = self._gates[expert_id]
        gate.active -= 1
        gate.hand_over()
        self._forget_idle(expert_id, gate)

    def _forget_idle(self, expert_id: str, gate: _Gate) -> None:
        # Another gate may stand there: whoever gives up its wait runs only after this one was forgotten and the next call has come.
        if not gate.active and not gate.waiting and self._gates.get(expert_id) is gate:
            del self._gates[expert_id]

    async def _wait(self, gate: _Gate, expert_id: str, max_queued: int, timeout_s: float, deadline: Deadline) -> None:
        if len(gate.waiting) >= max_queued:
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
