"""The vLLM servers of one service: declared by the experts' cards, loaded when somebody needs them, within the host's memory.

``update`` is told the cards whenever they change. ``held`` is for calls, ``hold`` for those who make many calls to one server.
Everything else only looks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar

from domain.deadline import Deadline
from domain.errors import Conflict, ConsiliumError, ExpertProtocolError, ExpertUnavailable, ExpertUnreachable, NotFound
from domain.experts import Backend, ExpertCard
from workers.managed.adapters import AdapterLoads
from workers.managed.environ import Environ
from workers.managed.host import MeasuredHost
from workers.managed.measurements import CallTimes, Measurements
from workers.managed.operations import Operations
from workers.managed.placement import HostMemory, Placement, Seat, Seen, Source, launch_key, place
from workers.managed.pools import Pools
from workers.managed.retiring import Retirement
from workers.managed.saving import Saver
from workers.managed.settings import Address, FleetSettings
from workers.managed.sources import source_of
from workers.managed.views import FleetView, view_of_pools, view_of_servers
from workers.managed.waiting import told
from workers.residency.manager import OnProgress
from workers.residency.state import ServerState as Residency
from workers.vllm.status import ServerState, ServerStatus
from workers.vllm.supervisor import Supervisor

log = logging.getLogger(__name__)

_held: ContextVar[frozenset[str]] = ContextVar("held", default=frozenset())
"""Servers that the code that runs holds already. A call made meanwhile goes right in: were it to ask again, it could wait behind
somebody who waits for this very hold to end."""


class Fleet:
    """Nothing runs before the first ``update`` with a card that needs a server. Lives on one event loop."""

    def __init__(self, settings: FleetSettings) -> None:
        self._settings, self._limits = settings, settings.limits
        self._memory = settings.memory
        self._environ = Environ()
        self._supervisor = Supervisor(
            settings.folder,
            settings.installation,
            inherited=self._environ,
            limits=settings.vllm_limits,
            policy=settings.restart_policy,
            restart=False,
            on_down=self._on_down,
        )
        self._pools = Pools(MeasuredHost(self._supervisor, self._on_change), policy=settings.policy, limits=settings.residency_limits)
        self._measurements = Measurements(settings.folder / "measured.json", max_entries=self._limits.max_measured)
        self._saver = Saver(self._measurements, self._collect)
        self._adapters = AdapterLoads(self._supervisor)
        self._retirement = Retirement(self._supervisor, self._pools, lambda: self._placement, self._limits)
        self.operations = Operations(self._supervisor, self._pools, lambda: self._placement, self.hold, self._limits)
        """For people who start and stop servers themselves."""
        self._placement = Placement()
        self._cards: dict[str, ExpertCard] = {}
        """Those that the placement is about."""
        self._updating = asyncio.Lock()
        self._placed = asyncio.Event()
        """Set, and replaced, after every update."""
        self._down = asyncio.Event()
        """Set, and replaced, when a server went down."""
        self._changed: set[str] = set()
        """Servers of which something new was measured."""
        self._is_open = self._is_closed = self._is_read = False
        self._trouble: str | None = settings.refusal or "the managed servers are not set up yet"
        self._opening: asyncio.Task[None] | None = None

    # --- what there is ---

    def manages(self, card: ExpertCard) -> bool:
        """Whether the expert lives on a managed server."""
        return card.backend is Backend.VLLM or (card.backend is Backend.EMBEDDED and self._settings.serves_embedded)

    async def update(self, cards: Iterable[ExpertCard]) -> None:
        """These are the experts now. Returns when new ones have their place; servers that have to go, go when they are idle.

        What cannot be placed fails its own calls. Raises nothing that a card can cause.
        """
        everyone = tuple(cards)
        async with self._updating:
            if self._is_closed:
                return
            self._environ.withhold(everyone)
            wanted = {card.id: card for card in everyone if card.enabled and self.manages(card)}
            if wanted and not self._is_read:
                await asyncio.to_thread(self._measurements.read)
                self._is_read = True
            sources, unreadable = await asyncio.to_thread(self._sources, wanted.values())
            memory = await self._memory_for(sources)
            placement = place(sources, memory, self._measurements.servers, taken=[card.id for card in everyone])
            await self._adapters.drop_changed(self._placement.seats, placement.seats)
            self._placement = Placement(placement.servers, placement.seats, {**placement.obstacles, **unreadable})
            self._cards = wanted
            for expert_id, why in self._placement.obstacles.items():
                log.warning("the expert %s has no server: %s", expert_id, why)
            self._retirement.declare_all()
            if await self._may_open(wanted):
                await self._open()
            if self._is_open:
                self._retirement.begin()
            self._placed.set()
            self._placed = asyncio.Event()

    async def close(self) -> None:
        """Turn away who waits, and stop every server."""
        self._is_closed, self._trouble = True, "the service is shutting down"
        try:
            async with asyncio.timeout(self._limits.close_timeout_s):
                if self._opening is not None:
                    self._opening.cancel()
                await self._retirement.close()
                await self._adapters.close()
                await self._pools.close()
                await self._saver.close()
        except TimeoutError:
            log.error("what is under way at the vLLM servers cannot be cancelled within %g s", self._limits.close_timeout_s)
        finally:
            await self._supervisor.close()

    def view(self) -> FleetView:
        """How things stand."""
        snapshots = self._pools.snapshots()
        statuses = {status.server_id: status for status in self._supervisor.statuses()}
        trouble = self._trouble if self._cards else None
        return FleetView(
            view_of_servers(self._placement.servers, statuses, snapshots), view_of_pools(snapshots), self._placement.obstacles, trouble
        )

    def seat_of(self, expert_id: str) -> Seat | None:
        """Where the expert lives; None when it lives on no managed server."""
        return self._placement.seats.get(expert_id)

    def to_load(self) -> dict[str, tuple[str, float]]:
        """Experts whose server cannot serve as it is, by id: the server, and the MB that it would take more than it holds now."""
        missing = {
            picture.id: max(0.0, picture.memory_mb - picture.held_mb)
            for snapshot in self._pools.snapshots().values()
            for picture in snapshot.servers
            if picture.state is not Residency.AWAKE
        }
        seats = self._placement.seats.items()
        return {expert_id: (seat.server_id, missing[seat.server_id]) for expert_id, seat in seats if seat.server_id in missing}

    @property
    def pinned(self) -> frozenset[str]:
        """Servers that are never evicted."""
        return frozenset(server.id for server in self._placement.servers.values() if server.pinned)

    @property
    def call_times(self) -> Mapping[str, CallTimes]:
        """Expert id to what was measured of its calls."""
        return self._measurements.experts

    # --- for metrics ---

    @property
    def num_resident(self) -> int:
        """Servers that hold memory now."""
        return sum(len(pool.resident) for pool in view_of_pools(self._pools.snapshots()))

    @property
    def num_uses(self) -> int:
        """Calls that were let in at a server, since the start."""
        return sum(snapshot.counts.num_uses for snapshot in self._pools.snapshots().values())

    @property
    def num_hits(self) -> int:
        """Those that found their server up."""
        return sum(snapshot.counts.num_hits for snapshot in self._pools.snapshots().values())

    @property
    def num_loads(self) -> int:
        """Loads since the start."""
        return sum(snapshot.counts.num_loads for snapshot in self._pools.snapshots().values())

    @property
    def num_failed_loads(self) -> int:
        return sum(snapshot.counts.num_failed for snapshot in self._pools.snapshots().values())

    @property
    def waited_s(self) -> float:
        """Seconds that requests have waited for servers, all together."""
        return sum(snapshot.counts.waited_s for snapshot in self._pools.snapshots().values())

    # --- for calls ---

    @asynccontextmanager
    async def held(self, card: ExpertCard, deadline: Deadline, tell: Callable[[str], None] | None = None) -> AsyncIterator[Address]:
        """The expert's server up, its adapter loaded, for as long as the block lasts. *tell* hears how the wait goes.

        Raises ``ExpertError``. When the block raises one that may mean that the server died, that is waited for: who tries again at
        once would meet a port where nobody listens.
        """
        seat = await self._seat(card, deadline)
        base_url: str | None = None
        try:
            async with self._told(card.id, tell) as on_progress, self._up(seat.server_id, deadline, on_progress):
                base_url = self._address(seat.server_id)
                now = self.seat_of(card.id)
                if now is not None and now.server_id == seat.server_id:
                    seat = now  # its adapter may have changed while the server was waited for
                if seat.adapter is not None:
                    await self._adapters.loaded(seat.server_id, card.id, seat.adapter, deadline)
                yield Address(base_url, seat.model)
        except (ExpertUnreachable, ExpertProtocolError) as error:
            if base_url is not None and error.retryable:
                await self._until_known(seat.server_id, base_url, deadline)
            raise

    def _told(self, expert_id: str, tell: Callable[[str], None] | None) -> AbstractAsyncContextManager[OnProgress | None]:
        return nullcontext() if tell is None else told(expert_id, tell, self._limits.progress_s)

    async def _until_known(self, server_id: str, base_url: str, deadline: Deadline) -> None:
        """Return when it is known whether the server at *base_url* is down, at the latest after ``confirm_s``."""
        try:
            async with asyncio.timeout(min(self._limits.probe_s, deadline.remaining_s)):
                if await self._supervisor.ailment(server_id) is None:
                    return
        except (ConsiliumError, TimeoutError):
            pass
        try:
            async with asyncio.timeout(min(self._limits.confirm_s, deadline.remaining_s)):
                while self._is_up(server_id) and self._supervisor.status(server_id).base_url == base_url:
                    await self._down.wait()
        except TimeoutError:
            return

    # --- for batches ---

    @asynccontextmanager
    async def hold(self, server_id: str, deadline: Deadline) -> AsyncIterator[None]:
        """The server up and answering for as long as the block lasts. Calls that are made inside, also by tasks that begin there,
        are let in whoever else waits. Raises ``ExpertError``. Hold none while waiting for another."""
        await self._opened(deadline)
        async with self._pools.of(server_id).hold(server_id, deadline):
            before = _held.get()
            _held.set(before | {server_id})
            try:
                yield
            finally:
                _held.set(before)

    def prefetch(self, server_id: str) -> bool:
        """Begin to load it if that takes nothing from anybody; whether it is up or comes up."""
        return self._is_open and self._pools.pool_of(server_id) is not None and self._pools.of(server_id).prefetch(server_id)

    def release(self, server_id: str) -> None:
        """Stop it now if nobody uses it or waits for it, so that a later load finds its memory free."""
        if self._is_open and self._pools.pool_of(server_id) is not None:
            self._pools.of(server_id).release(server_id)

    def expect(self, server_ids: Sequence[str]) -> None:
        """The servers that will be needed, soonest first; replaces what was expected before."""
        self._pools.expect(server_ids)

    def measured(self, expert_id: str, *, call_s: float, aggregation: bool) -> None:
        """A bucket has ended: seconds that each of its calls added."""
        self._measurements.called(expert_id, call_s, aggregation=aggregation)
        self._saver.soon()

    # --- inside ---

    def _sources(self, cards: Iterable[ExpertCard]) -> tuple[list[Source], dict[str, str]]:
        sources, unreadable = [], {}
        for card in cards:
            try:
                sources.append(source_of(card, self._settings.embedded_dir))
            except ConsiliumError as error:
                unreadable[card.id] = error.message
        return sources, unreadable

    async def _memory_for(self, sources: Sequence[Source]) -> HostMemory:
        if self._memory.gpu_mb is None and any(source.serving.gpus for source in sources):
            found = await asyncio.to_thread(self._settings.ask_gpu_memory)
            self._memory = HostMemory(self._memory.processors_mb, found, self._memory.assumed_mb)
        return self._memory

    async def _may_open(self, wanted: Mapping[str, ExpertCard]) -> bool:
        """Whether there is, or may be from earlier, anything to manage, and that is not done yet."""
        if self._is_open or self._is_closed or self._settings.refusal is not None:
            return False
        return bool(wanted) or await asyncio.to_thread(self._settings.folder.exists)

    async def _open(self) -> None:
        """Become the one who manages the folder, and take over what an earlier service has left; try again later if another does."""
        try:
            adopted = await self._supervisor.open()
        except Conflict as error:
            self._trouble = f"another process manages the vLLM servers: {error.message}"
            log.error("%s; this one tries again every %g s", self._trouble, self._limits.retry_s)
            self._opening = asyncio.create_task(self._open_later(), name="managed servers: open")
            return
        except (ConsiliumError, OSError) as error:
            self._trouble = f"vLLM servers cannot be managed here: {error}"
            log.error("%s", self._trouble)
            return
        await self._take_over(adopted)

    async def _open_later(self) -> None:
        while True:
            await asyncio.sleep(self._limits.retry_s)
            async with self._updating:
                try:
                    adopted = await self._supervisor.open()
                except Conflict:
                    continue
                except (ConsiliumError, OSError) as error:
                    self._trouble = f"vLLM servers cannot be managed here: {error}"
                    log.error("%s", self._trouble)
                    return
                await self._take_over(adopted)
                self._retirement.begin()
                self._placed.set()
                self._placed = asyncio.Event()
            log.info("the vLLM servers are managed by this process now")
            return

    async def _take_over(self, adopted: Iterable[ServerStatus]) -> None:
        for status in adopted:
            if not self._pools.of(status.server_id).adopt(status.server_id, asleep=status.state is ServerState.ASLEEP):
                await self._supervisor.stop(status.server_id)
        self._is_open, self._trouble = True, None

    async def _opened(self, deadline: Deadline) -> None:
        """Wait for the first update. Raises ``ExpertError``."""
        if self._trouble is not None and self._updating.locked() and not self._is_closed:
            await self._until_updated(deadline.remaining_s)
        if self._trouble is not None:
            raise ExpertUnavailable(self._trouble)

    async def _seat(self, card: ExpertCard, deadline: Deadline) -> Seat:
        """Where the expert lives. A card that is news waits for its place."""
        if not card.enabled:
            raise ExpertUnavailable(f"expert {card.id!r} is disabled, and disabled experts have no server: enable it first")
        placed = self._cards.get(card.id)
        if (placed is None or placed.version < card.version) and not self._is_closed:
            await self._until_updated(min(self._limits.place_wait_s, deadline.remaining_s))
        await self._opened(deadline)
        seat = self._placement.seats.get(card.id)
        if seat is None:
            why = self._placement.obstacles.get(card.id, "it is not placed on a server")
            raise ExpertUnavailable(f"expert {card.id!r} has no server: {why}")
        return seat

    async def _until_updated(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._placed.wait()
        except TimeoutError:
            return

    def _up(self, server_id: str, deadline: Deadline, on_progress: OnProgress | None) -> AbstractAsyncContextManager[None]:
        if server_id in _held.get() and self._is_up(server_id):
            return nullcontext()
        return self._pools.of(server_id).hold(server_id, deadline, on_progress)

    def _is_up(self, server_id: str) -> bool:
        try:
            return self._supervisor.status(server_id).state is ServerState.READY
        except NotFound:
            return False

    def _address(self, server_id: str) -> str:
        """Raises ``ExpertUnreachable`` when the server died in this moment."""
        try:
            return self._supervisor.base_url(server_id)
        except ConsiliumError as error:
            raise ExpertUnreachable(error.message) from error

    def _on_down(self, status: ServerStatus) -> None:
        self._pools.lost(status.server_id)
        # One that was given up, after several failures in a row, waits for somebody who needs it.
        if status.server_id in self.pinned and status.num_failures and not self._is_closed:
            self.prefetch(status.server_id)
        self._down.set()
        self._down = asyncio.Event()

    def _on_change(self, server_id: str) -> None:
        self._changed.add(server_id)
        self._saver.soon()

    def _collect(self) -> None:
        """Take what the residency and the supervisor have measured of the servers that just changed."""
        changed, self._changed = self._changed, set()
        for snapshot in self._pools.snapshots().values():
            for picture in snapshot.servers:
                server = self._placement.servers.get(picture.id)
                if server is None or picture.id not in changed or (status := self._supervisor.status(picture.id)).is_outdated:
                    continue
                key, own = launch_key(server.launch), status.measured
                before = self._measurements.servers.get(key, Seen())
                seen = Seen(
                    picture.load_s if picture.num_loads else before.load_s,
                    picture.sleep_s if own.sleep_s is not None else before.sleep_s,
                    picture.wake_s if own.wake_s is not None else before.wake_s,
                    own.memory_mb if own.memory_mb is not None else before.memory_mb,
                )
                if seen != Seen():
                    self._measurements.saw(key, seen)
