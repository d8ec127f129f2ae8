"""The registry in memory, as requests see it: one immutable snapshot, and the experts' health."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from domain.deadline import Clock
from domain.errors import ConsiliumError
from domain.experts import HealthState
from domain.plan import Outcome
from domain.registry import RegistrySnapshot
from experts_registry import aggregator_rows, outcome_rows, state
from experts_registry.database import Database
from experts_registry.experts import EXPERTS
from experts_registry.health import HealthBoard, HealthPolicy
from experts_registry.keys import KEYS
from experts_registry.skills import read_skills
from experts_registry.strategies import STRATEGIES
from experts_registry.tally import to_profiles

logger = logging.getLogger(__name__)

_LOOKS_APART_S = 0.2
"""Between two looks that were asked for: whoever tries one key after the other must not keep the database busy."""

OnSnapshot = Callable[[RegistrySnapshot], None]


async def read_snapshot(database: Database, *, known: RegistrySnapshot | None = None) -> RegistrySnapshot:
    """The registry at one moment; *known* itself when nothing has changed since."""
    async with database.reading() as connection:
        versions = await state.read_versions(connection)
        if known is not None and known.version == versions.registry:
            return known
        cards = {card.id: card for card in await EXPERTS.all(connection)}
        strategies = {strategy.id: strategy for strategy in await STRATEGIES.all(connection)}
        profiles = to_profiles(await outcome_rows.read_counts(connection))
        aggregators = await aggregator_rows.read_profiles(connection, cards)
        return RegistrySnapshot(
            version=versions.registry,
            questions_version=versions.questions,
            experts=cards,
            strategies=strategies,
            skills=await read_skills(connection),
            # What was measured outlives its expert, but only experts that are there take part.
            profiles={expert_id: profile for expert_id, profile in profiles.items() if expert_id in cards},
            aggregator_profiles={expert_id: profile for expert_id, profile in aggregators.items() if expert_id in cards},
            keys={key.id: key for key in await KEYS.all(connection)},
        )


class RegistryDirectory:
    """Satisfies ``orchestrator.ports.Directory``. Requests never wait for the database: reads are of what is in memory.

    Changes by this process are live when ``refresh`` returns, those of others within *poll_interval_s*. While the database
    cannot be read the last snapshot stays, and ``storage_error`` says why.
    """

    def __init__(
        self,
        database: Database,
        *,
        poll_interval_s: float = 1.0,
        clock: Clock = time.monotonic,
        health: HealthPolicy | None = None,
    ) -> None:
        self._database = database
        self._poll_interval_s = poll_interval_s
        self._health = HealthBoard(clock=clock, policy=health)
        self._snapshot = RegistrySnapshot()
        self._loaded = False
        self._reading = asyncio.Lock()
        self._callbacks: list[OnSnapshot] = []
        self._poller: asyncio.Task[None] | None = None
        self._clock = clock
        self._looks = set[asyncio.Task[None]]()
        """At most one that reads, and one that comes after it."""
        self._next_look: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()
        self._looked_at = -math.inf
        self.storage_error: ConsiliumError | None = None
        """Why the last look at the database failed; None when it did not."""

    async def start(self) -> None:
        """Read the registry and begin to watch it. Raises ``NotReady`` or ``StorageError`` when it cannot be read."""
        await self.refresh()
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll(), name="registry poll")

    async def close(self) -> None:
        """Stop watching. The snapshot stays readable."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
            self._poller = None
        looks, self._looks, self._next_look = self._looks, set(), None
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)

    async def refresh(self) -> RegistrySnapshot:
        """See what is committed now; call it after every change made by this process. Returns the snapshot."""
        async with self._reading:
            before = self._snapshot
            after = await read_snapshot(self._database, known=before if self._loaded else None)
            self._loaded = True
            self.storage_error = None
            if after is not before:
                self._snapshot = after
                self._forget_changed(before, after)
                for callback in tuple(self._callbacks):
                    _call(callback, after)
        return after

    async def look_again(self) -> None:
        """Return when what other processes had committed before the call is seen, or the database could not be read.

        For whoever was refused because of what may be news from elsewhere. Those who wait share a look; looks are ``_LOOKS_APART_S`` apart.
        """
        if self._next_look is None:
            self._next_look = asyncio.create_task(self._look_in_turn(), name="registry look")
            self._looks.add(self._next_look)
            self._next_look.add_done_callback(self._looks.discard)
        await asyncio.wait([self._next_look])  # which neither cancels it nor fails with it

    async def _look_in_turn(self) -> None:
        async with self._looking:
            await asyncio.sleep(self._looked_at + _LOOKS_APART_S - self._clock())
            self._next_look = None  # whoever comes from now on needs a later one
            self._looked_at = self._clock()
            try:
                await self.refresh()
            except ConsiliumError as error:
                logger.debug("the registry could not be read again: %s", error)
            except Exception:
                logger.exception("reading the registry failed")  # as in the poll: who has asked is told what was known before

    def subscribe(self, callback: OnSnapshot) -> Callable[[], None]:
        """Call *callback* with every new snapshot, at once and on the event loop; returns how to stop that."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def snapshot(self) -> RegistrySnapshot:
        """The registry as last seen."""
        return self._snapshot

    def health_of(self, expert_id: str) -> HealthState:
        """The expert's circuit; ``HALF_OPEN`` means that a trial call is due and none is running."""
        return self._health.state_of(expert_id)

    def begin_call(self, expert_id: str) -> int | None:
        """The number of a call that may begin now, None when none may; takes the one trial of a half-open circuit. Ask right
        before the call."""
        return self._health.begin_call(expert_id)

    def record(self, outcome: Outcome, *, call: int | None = None) -> None:
        """Learn from *outcome* of the call with that number: failures that are the expert's own fault open its circuit, an answer
        closes it."""
        self._health.record(outcome, call=call)

    def _forget_changed(self, before: RegistrySnapshot, after: RegistrySnapshot) -> None:
        changed = [expert_id for expert_id, card in before.experts.items() if after.experts.get(expert_id) != card]
        self._health.forget(changed)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_interval_s)
            try:
                await self.refresh()
            except ConsiliumError as error:
                if self.storage_error is None:
                    logger.warning("the registry cannot be read, requests go on with what is known: %s", error)
                self.storage_error = error
            except Exception:
                # A fault of ours; the next look may be fine, and a registry that is never read again would be worse.
                logger.exception("reading the registry failed")


def _call(callback: OnSnapshot, snapshot: RegistrySnapshot) -> None:
    try:
        callback(snapshot)
    except Exception:
        # One subscriber's fault must not keep the others, or the next snapshot, from being seen.
        logger.exception("a subscriber of the registry failed")
