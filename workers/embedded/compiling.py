"""Grammars are compiled apart from everything else: few at once, and no more waiting than can be served."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from domain.errors import ExpertOverloaded
from workers.embedded.constraint import Constraint
from workers.embedded.guide import Guide
from workers.embedded.model import LoadedModel
from workers.limits import EmbeddedLimits


class Compiling:
    """Threads that do nothing but compile, so that a slow schema delays other schemas only.

    A caller who gives up leaves the queue at once. A compilation that has begun cannot be stopped; the bounds on a schema
    (``EmbeddedLimits``) keep it short.
    """

    def __init__(self, limits: EmbeddedLimits) -> None:
        self._limits = limits
        self._executor = ThreadPoolExecutor(limits.num_compiling, "grammar")
        self._num_waiting = 0

    async def guides(self, model: LoadedModel, constraint: Constraint, num_choices: int, max_tokens: int) -> list[Guide]:
        """One guide for each choice. Raises ``ExpertRejected`` for a schema that cannot be expressed, ``ExpertOverloaded``."""
        if self._num_waiting >= self._limits.max_compiling:
            msg = f"{self._num_waiting} schemas wait to be compiled for the embedded experts already; the queue is full"
            raise ExpertOverloaded(msg, retry_after_s=1.0)
        self._num_waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, _guides, model, constraint, num_choices, max_tokens)
        finally:
            self._num_waiting -= 1

    def close(self) -> None:
        """Drop what waits. Does not wait for what has begun."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _guides(model: LoadedModel, constraint: Constraint, num_choices: int, max_tokens: int) -> list[Guide]:
    compiler = model.grammar()
    compiled = compiler.compile(constraint)
    return [Guide(compiler, compiled, max_tokens) for _ in range(num_choices)]
