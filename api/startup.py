"""Loading in the background: ``/health`` answers at once, ``/ready`` says what is still missing, and what fails is tried again.

Afterwards the same tasks keep the process up to date: they rebuild the index and load experts when the registry changes, and
delete old traces and files.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from api.disconnect import stop
from api.services import Services
from domain.errors import ConsiliumError, NotReady, StorageError
from domain.experts import ExpertCard
from domain.registry import RegistrySnapshot

log = logging.getLogger(__name__)

MAX_RETRY_S = 60.0
"""Longest wait between attempts: whoever mends the cause should not wait much longer than a minute for the effect."""
YOUNG_OBJECTS = 20_000
"""Objects made since the garbage collector looked last for which it looks again. A request makes some hundred that reference counting
frees by itself; looking every 700, which is Python's own figure, took a fifth of the processor with 64 requests under way."""
SWEEP_PERIOD_S = 3600.0
"""How often old traces and files are deleted. Their age is counted in days, so an hour more or less is nothing."""

LATENCIES_PERIOD_S = 30.0
"""Shortest time between two looks at measured latencies: while a measurement runs the registry changes every second, a mean hardly."""

Step = Callable[[], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]


class Startup:
    """The background tasks of one process. ``begin`` once, ``end`` once."""

    def __init__(self, services: Services, *, seed: Step, sleep: Sleep = asyncio.sleep, now: Callable[[], float] = time.time) -> None:
        self._services, self._seed, self._sleep, self._now = services, seed, sleep, now
        self._tasks: list[asyncio.Task[None]] = []
        self._database_there, self._encoder_there = asyncio.Event(), asyncio.Event()
        self._index_there, self._experts_there, self._servers_there = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._index_is_old, self._experts_are_old, self._servers_are_old = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._latencies_are_old = asyncio.Event()
        self._loaded: dict[str, ExpertCard] = {}
        services.readiness.expect("database", "encoder", "index", "experts")

    def begin(self) -> None:
        """Start loading. Returns at once."""
        steps = {
            "database": self._open_database,
            "encoder": self._load_encoder,
            "index": self._keep_index,
            "models": self._keep_models,
            "latencies": self._keep_latencies,
            "experts": self._keep_experts,
            "servers": self._keep_servers,
            "traces": self._sweep_traces,
            "feedback": self._follow_feedback,
            "old feedback": self._sweep_feedback,
            "solved problems": self._follow_memory,
            "files": self._sweep_files,
            "batches": self._run_batches,
            "memory": self._settle_memory,
        }
        self._tasks = [asyncio.create_task(self._lasting(name, step), name=f"consilium-{name}") for name, step in steps.items()]

    async def end(self) -> None:
        """Stop every task and wait for it."""
        await stop(*self._tasks)

    async def _lasting(self, name: str, step: Step) -> None:
        """Run *step*, and again after growing waits when a fault of ours ends it: nobody awaits these tasks, so nobody else would tell."""
        wait_s = self._services.settings.startup_retry_s
        while True:
            try:
                await step()
                return
            except Exception:
                log.exception("%s: ended by a fault of the service; begins again in %g s", name, wait_s)
            await self._sleep(wait_s)
            wait_s = min(2 * wait_s, MAX_RETRY_S)

    async def _every(self, period_s: float, step: Step, failed: str) -> None:
        """Run *step* now and once a period, whatever comes of it; *failed* is what the log says when nothing did."""
        while True:
            try:
                await step()
            except Exception as error:  # the next time may be fine
                log.warning("%s: %s", failed, error, exc_info=None if isinstance(error, ConsiliumError) else error)
            await self._sleep(period_s)

    async def _open_database(self) -> None:
        await self._until_done("database", self._connect)
        self._database_there.set()

    async def _connect(self) -> None:
        services = self._services
        await services.database.upgrade()
        await self._seed()
        await services.directory.start()
        await services.trace_store.start()
        await services.keys.usage.start()
        services.directory.subscribe(self._on_change)

    def _on_change(self, _snapshot: RegistrySnapshot) -> None:
        # Events coalesce: many changes while one refresh runs lead to one more.
        self._index_is_old.set()
        self._services.models.changed()
        self._latencies_are_old.set()
        self._experts_are_old.set()
        self._servers_are_old.set()

    async def _load_encoder(self) -> None:
        await self._until_done("encoder", self._services.encoder.start)
        self._encoder_there.set()

    async def _keep_index(self) -> None:
        self._services.readiness.set("index", "waiting for the database and the encoder")
        await self._database_there.wait()
        await self._encoder_there.wait()
        while True:
            self._index_is_old.clear()
            await self._until_done("index", self._refresh_index, is_update=self._services.readiness.is_done("index"))
            self._index_there.set()
            await self._index_is_old.wait()

    async def _refresh_index(self) -> None:
        services, questions = self._services, self._services.question_store
        snapshot = services.directory.snapshot()

        async def save(encoder_id: str, vectors: Mapping[str, bytes]) -> None:
            await questions.save_vectors(encoder_id, vectors, questions_version=snapshot.questions_version)

        await services.index_holder.refresh(snapshot, questions.list, questions.vectors, save)

    async def _keep_models(self) -> None:
        """After the index, which stores the vectors of the labelled questions. The service is ready without: who needs a router
        that has to be fitted waits for it."""
        await self._index_there.wait()
        await self._services.models.keep()

    async def _keep_latencies(self) -> None:
        """Tell routers how long experts took when they were measured, at the start and when the registry has changed."""
        await self._database_there.wait()
        while True:
            self._latencies_are_old.clear()
            try:
                self._services.latencies.measured(await self._services.profile_store.mean_latencies())
            except Exception as error:  # whatever it is, the next look may be fine
                expected = isinstance(error, ConsiliumError)
                log.warning("the measured latencies of experts were not read: %s", error, exc_info=None if expected else error)
                self._latencies_are_old.set()
            await self._sleep(LATENCIES_PERIOD_S)
            await self._latencies_are_old.wait()

    async def _keep_experts(self) -> None:
        self._services.readiness.set("experts", "waiting for the database")
        await self._database_there.wait()
        while True:
            self._experts_are_old.clear()
            await self._load_experts()
            self._services.readiness.done("experts")
            self._experts_there.set()
            await self._experts_are_old.wait()

    async def _load_experts(self) -> None:
        """Load experts that are new or changed (of remote ones: what calls them). One that cannot be loaded fails its own
        calls, not the service."""
        cards = [card for card in self._services.directory.snapshot().experts.values() if card.enabled]
        new = [card for card in cards if self._loaded.get(card.id) != card]
        for i, card in enumerate(new):
            if not self._services.readiness.is_done("experts"):
                self._services.readiness.set("experts", f"loading {i + 1} of {len(new)}")
            try:
                await self._services.workers.warm([card])
            except Exception as error:  # whatever it is, the others are to be loaded and the service to become ready
                expected = isinstance(error, ConsiliumError)
                log.warning("the expert %s cannot be loaded: %s", card.id, error, exc_info=None if expected else error)
        self._loaded = {card.id: card for card in cards}

    async def _keep_servers(self) -> None:
        """Tell the fleet the cards. The service is ready without: who needs a managed server waits for it."""
        await self._database_there.wait()
        while True:
            self._servers_are_old.clear()
            try:
                await self._services.fleet.update(self._services.directory.snapshot().experts.values())
            except Exception:  # whatever it is, the next change of the registry may mend it
                log.exception("the managed servers could not be brought up to date")
            self._servers_there.set()
            await self._servers_are_old.wait()

    async def _sweep_traces(self) -> None:
        async def sweep() -> None:
            await self._services.trace_store.delete_before(self._now() - self._services.settings.trace_days * 86_400)

        await self._database_there.wait()
        await self._every(SWEEP_PERIOD_S, sweep, "old traces were not deleted")

    async def _follow_feedback(self) -> None:
        """What any process is told, every process learns."""
        await self._database_there.wait()
        if self._services.settings.feedback:
            await self._services.feedback.keep_up(self._services.settings.registry_poll_s)

    async def _follow_memory(self) -> None:
        """What any process adds to the memory of solved problems, or deletes from it, every process sees."""
        await self._database_there.wait()
        await self._encoder_there.wait()
        if self._services.settings.memory:
            await self._services.memory.live.keep_up(self._services.settings.registry_poll_s)

    async def _sweep_feedback(self) -> None:
        services = self._services

        async def sweep() -> None:
            await services.feedback_store.delete_before(self._now() - services.settings.feedback_days * 86_400)
            await services.feedback.reload()

        await self._database_there.wait()
        await self._every(SWEEP_PERIOD_S, sweep, "old feedback was not deleted")

    async def _sweep_files(self) -> None:
        services = self._services

        async def sweep() -> None:
            await services.file_store.sweep()
            await services.batch_store.drop_lines_before(self._now() - services.settings.file_days * 86_400)

        await self._database_there.wait()
        await self._every(SWEEP_PERIOD_S, sweep, "old files and batches were not deleted")

    async def _run_batches(self) -> None:
        """Once everything is loaded: a line that nobody can route yet would fail, and a plan that knows no server yet would load
        each of them again and again."""
        if not self._services.settings.run_batches:
            return
        for part in (self._index_there, self._experts_there, self._servers_there):
            await part.wait()
        await self._services.batches.service.run()

    async def _settle_memory(self) -> None:
        """What is loaded by now stays as long as the process: the garbage collector need not look through it again and again, each time
        for a tenth of a second in which nobody is answered."""
        for part in (self._index_there, self._experts_there):
            await part.wait()
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)

    async def _until_done(self, name: str, step: Step, *, is_update: bool = False) -> None:
        """Run *step* until it succeeds, with growing waits. A failed update leaves the part as it was: in use, only old."""
        readiness, wait_s = self._services.readiness, self._services.settings.startup_retry_s
        if not is_update:
            readiness.set(name, "loading")
        while True:
            began = time.perf_counter()
            try:
                await step()
            except Exception as error:  # whatever it is, it must be told and tried again
                expected = isinstance(error, ConsiliumError)
                log.warning("%s: %s; next attempt in %g s", name, error, wait_s, exc_info=None if expected else error)
                if not is_update:
                    readiness.set(name, _told(error))
            else:
                log.info("%s ready in %.1f s", name, time.perf_counter() - began)
                readiness.done(name)
                return
            await self._sleep(wait_s)
            wait_s = min(2 * wait_s, MAX_RETRY_S)


def _told(error: Exception) -> str:
    """*error* as ``/ready`` tells it, which is open to everybody."""
    match error:
        case NotReady() | StorageError():
            return error.public
        case ConsiliumError():
            return str(error)
        case _:
            return f"failed ({type(error).__name__}); the log has the details"
