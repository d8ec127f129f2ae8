"""What every backend's adapter offers to the pool."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from domain.chat import Chunk
from domain.plan import Candidate, ExpertCall


class Worker(Protocol):
    """Runs completions for every expert of one backend.

    Raises only ``ExpertError`` and ``CancelledError``. Neither limits, retries nor enforces the deadline: the pool does,
    by cancelling. A cancelled call leaves nothing running behind it.
    """

    async def start(self) -> None:
        """Acquire what needs the event loop (sessions, threads). Called once, before the first call."""
        ...

    async def close(self) -> None:
        """Release everything; calls still running fail."""
        ...

    async def complete(self, call: ExpertCall) -> Candidate:
        """The finished answer. ``latency_s`` and ``num_retries`` are the pool's to fill in."""
        ...

    def stream(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
        """The answer in pieces; usage, if known, in a last chunk of its own. Closing it ends the expert's work."""
        ...
