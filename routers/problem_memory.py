"""The solved problems of every tenant as requests see them: indexes in memory, which follow the database behind the requests' backs.

What another process adds or deletes is seen at the next look; what this one does, when ``follow`` returns. A tenant's index is made anew
as a whole and put in the place of the old one, so a search never sees half of a change.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from domain.errors import ConsiliumError, NotReady
from domain.memory import Demonstration, SolvedProblem
from domain.polling import keep_looking
from routers.problem_index import ProblemIndex
from routers.question_index import TextEncoder
from routers.skill_space import Floats

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """Bounds."""

    max_tenants: int = 256
    """Tenants whose problems are held in memory. Another one's are read when it asks."""
    max_held: int = 100_000
    """Problems of all tenants in memory; a thousand take about 4 MB. The tenant that asked last is held whatever it has."""
    load_wait_s: float = 2.0
    """Longest wait of a request for problems that are being read; it goes on without them."""
    max_used: int = 10_000
    """Problems whose use waits to be written; more is forgotten, which costs their order among those that have to leave."""


class ProblemSource(Protocol):
    """Where the problems are kept. Raises ``StorageError`` while the database cannot be reached."""

    async def changes(self, since: int) -> tuple[int, Sequence[str]]:
        """The version, and the tenants whose problems have changed after the version *since*, the latest last."""
        ...

    async def of_tenant(self, tenant: str) -> Sequence[SolvedProblem]: ...

    async def save_vectors(self, encoder_id: str, vectors: Mapping[str, bytes]) -> None:
        """By the problem's id, float16. Problems that are gone are left out."""
        ...

    async def used(self, moments: Mapping[str, float]) -> None:
        """When problems were shown (seconds since the epoch), by id."""
        ...


class ProblemMemory:
    """Satisfies ``orchestrator.ports.Memory``. One for each process."""

    def __init__(
        self,
        source: ProblemSource,
        encoder: TextEncoder,
        *,
        limits: MemoryLimits | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._source, self._encoder, self._limits, self._now = source, encoder, limits or MemoryLimits(), now
        self._version = 0
        self._known: set[str] = set()
        """Tenants that have, or once had, something."""
        self._indexes: OrderedDict[str, ProblemIndex] = OrderedDict()
        """By tenant; who asked last stands last."""
        self._unfinished: set[str] = set()
        """Tenants in whose index problems are missing, since they could not be encoded."""
        self._reading: dict[str, asyncio.Task[ProblemIndex]] = {}
        """By tenant: all requests that ask for one wait for the same reading."""
        self._used: dict[str, float] = {}
        self._following, self._has_looked = asyncio.Lock(), asyncio.Event()

    @property
    def num_problems(self) -> int:
        """Held in memory now."""
        return sum(len(index.problems) for index in self._indexes.values())

    async def recall(self, tenant: str, question: str, *, limit: int, min_similarity: float) -> Sequence[Demonstration]:
        """As ``orchestrator.ports.Memory`` has it. Nothing is read here, unless the tenant's problems are not in memory yet."""
        if not self._has_looked.is_set():
            await self._looked()
        if tenant not in self._known:
            return ()
        index = self._indexes.get(tenant)
        if index is None:
            index = await self._awaited(tenant)
        if tenant in self._indexes:
            self._indexes.move_to_end(tenant)
        if not index.problems:
            return ()
        (vector,) = await self._encoder.encode([question])
        if vector.shape != index.vector_shape:
            raise NotReady("the encoder was changed, and the solved problems are being read anew")
        found = index.search(question, vector, limit=limit, min_similarity=min_similarity)
        for shown in found[: max(0, self._limits.max_used - len(self._used))]:
            self._used[shown.problem_id] = self._now()
        return found

    async def follow(self) -> None:
        """See what any process has added or deleted, and write down what was used. Raises ``StorageError``."""
        async with self._following:
            version, tenants = await self._source.changes(self._version)
            self._known.update(tenants)
            room = self._limits.max_tenants if not self._version else 0  # at the start, those that changed last
            first = set(tenants[-room:]) if room else set()
            for tenant in {*tenants, *self._unfinished}:
                if tenant in self._indexes or tenant in first:
                    await self._read(tenant)
            self._version = version
            self._has_looked.set()
            used, self._used = self._used, {}
            if used:
                await self._source.used(used)

    async def keep_up(self, every_s: float) -> None:
        """``follow`` again and again, until cancelled."""
        await keep_looking(self.follow, every_s, what="solved problems", log=log)

    async def _looked(self) -> None:
        """Wait for the first look at the database, so that right after a start nobody is told that there is nothing."""
        try:
            async with asyncio.timeout(self._limits.load_wait_s):
                await self._has_looked.wait()
        except TimeoutError:
            raise NotReady("the solved problems were not read yet") from None

    async def _awaited(self, tenant: str) -> ProblemIndex:
        """Raises ``NotReady`` when it takes too long; it is read to its end all the same."""
        reading = self._reading.get(tenant)
        if reading is None:
            reading = self._reading[tenant] = asyncio.create_task(self._read_first(tenant))
            reading.add_done_callback(lambda done: self._has_read(tenant, done))
        try:
            async with asyncio.timeout(self._limits.load_wait_s):
                return await asyncio.shield(reading)
        except TimeoutError:
            raise NotReady("the solved problems are still being read") from None

    def _has_read(self, tenant: str, done: asyncio.Task[ProblemIndex]) -> None:
        del self._reading[tenant]
        if not done.cancelled():
            done.exception()  # of one that nobody waits for any more

    async def _read_first(self, tenant: str) -> ProblemIndex:
        async with self._following:
            return self._indexes.get(tenant) or await self._read(tenant)

    async def _read(self, tenant: str) -> ProblemIndex:
        problems = list(await self._source.of_tenant(tenant))
        vectors = await self._vectors(tenant, problems)
        kept = [problem for problem in problems if problem.id in vectors]
        matrix = np.stack([vectors[problem.id] for problem in kept]) if kept else np.zeros((0, 0), np.float32)
        # Off the event loop: a thousand problems take about a tenth of a second.
        index = self._indexes[tenant] = await asyncio.to_thread(ProblemIndex, kept, matrix)
        self._indexes.move_to_end(tenant)
        while len(self._indexes) > self._limits.max_tenants or (len(self._indexes) > 1 and self.num_problems > self._limits.max_held):
            left, _ = self._indexes.popitem(last=False)
            self._unfinished.discard(left)
        return index

    async def _vectors(self, tenant: str, problems: Sequence[SolvedProblem]) -> dict[str, Floats]:
        """By problem. Those that have none yet are encoded, and their vectors kept; where that fails they are left out until later."""
        self._unfinished.discard(tenant)
        try:
            encoder_id, size = self._encoder.encoder_id, 2 * self._encoder.dimensions
        except ConsiliumError:
            self._unfinished.add(tenant)
            return {}
        known = {p.id: p.vector for p in problems if p.vector is not None and p.encoder_id == encoder_id and len(p.vector) == size}
        found = {problem_id: _unit(np.frombuffer(vector, "<f2").astype(np.float32)) for problem_id, vector in known.items()}
        missing = [problem for problem in problems if problem.id not in found]
        if not missing:
            return found
        try:
            made = await self._encoder.encode([problem.question for problem in missing])
        except ConsiliumError as error:
            log.warning("%d solved problems are not found yet, since they could not be encoded: %s", len(missing), error)
            self._unfinished.add(tenant)
            return found
        stored = {problem.id: vector.astype("<f2").tobytes() for problem, vector in zip(missing, made, strict=True)}
        await self._source.save_vectors(encoder_id, stored)
        return found | {problem.id: vector for problem, vector in zip(missing, made, strict=True)}


def _unit(vector: Floats) -> Floats:
    """Of length 1 again, which rounding has changed a little."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)
