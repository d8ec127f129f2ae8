"""The memory of solved problems as the service uses it: what feedback lets in and takes out."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from domain.feedback import Feedback
from domain.memory import SolvedProblem
from domain.trace import Trace
from orchestrator.feedback.solved import found_right, may_write, solved_of

if TYPE_CHECKING:
    from experts_registry.memory import MemoryStore
    from routers.problem_memory import ProblemMemory


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Every change is seen by this process's requests when its method returns, by other processes' at their next look."""

    store: MemoryStore
    live: ProblemMemory
    """What requests are shown from."""
    learns: bool
    """Whether feedback may fill it: the memory is on, and traces keep what was said as it was said."""

    async def heard(self, trace: Trace, event: Feedback, *, stands: Callable[[], Awaitable[bool]]) -> SolvedProblem | None:
        """*event* was said about *trace*: right lets the answer in, where that was asked for; wrong takes it out. What was kept.

        *stands* is whether both are there still, asked once the answer is in: who takes one of them back or deletes it before that finds
        nothing to forget.
        """
        is_right = found_right(trace, event.given) if event.counts else None
        problem = solved_of(trace, event, now=time.time()) if is_right is not None else None
        if is_right is False:
            num_gone = await self.store.forget(trace_id=trace.id)
            await self._seen(num_gone + (0 if problem is None else await self.store.disowned(problem)))
        if not is_right or problem is None or not self.learns or not may_write(trace):
            return None
        (kept,) = await self.add([problem])
        if not await stands():
            await self.taken_back(event.id)
            return None
        return kept

    async def taken_back(self, feedback_id: str) -> None:
        """What that feedback let in goes."""
        await self._seen(await self.store.forget(feedback_id=feedback_id))

    async def forgotten(self, trace_id: str) -> None:
        """What was solved in that request goes with it."""
        await self._seen(await self.store.forget(trace_id=trace_id))

    async def forgotten_before(self, timestamp: float) -> None:
        """The same of every request that began before *timestamp* (seconds since the epoch). To be called while they are in the traces."""
        await self._seen(await self.store.forget_requests_before(timestamp))

    async def add(self, problems: Sequence[SolvedProblem]) -> list[SolvedProblem]:
        """Raises as ``MemoryStore.add``."""
        kept = await self.store.add(problems)
        await self.live.follow()
        return kept

    async def delete(self, problem_id: str) -> None:
        """Raises ``NotFound``."""
        await self.store.delete(problem_id)
        await self.live.follow()

    async def clear(self, tenant: str) -> int:
        """How many there were."""
        num = await self.store.clear(tenant)
        await self.live.follow()
        return num

    async def _seen(self, num_gone: int) -> None:
        if num_gone:
            await self.live.follow()
