"""What the residency needs of a host, and the changes of servers that it makes there: timed, bounded, with what to do when one fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from domain.deadline import Clock
from domain.errors import ExpertError, ExpertTimeout
from workers.residency.limits import ResidencyLimits
from workers.residency.state import Server, ServerState

log = logging.getLogger(__name__)


class ServerHost(Protocol):
    """Starts and stops servers on one machine. Of one server only one call runs at a time; of several they run at once.

    Raises only ``ExpertError`` (and ``CancelledError``).
    """

    async def load(self, server_id: str) -> None:
        """Return when the server answers. When it fails or is cancelled it leaves nothing running and no memory held."""
        ...

    async def stop(self, server_id: str) -> None:
        """Return when its memory is free, also when it was not running. Raises when the server cannot be ended."""
        ...

    async def sleep(self, server_id: str) -> None:
        """Return when it holds no more than ``asleep_mb``. Never called for a server that declares none."""
        ...

    async def wake(self, server_id: str) -> None:
        """Return when it answers again."""
        ...


@dataclass(slots=True)
class Counts:
    """What happened since the start. ``lost_s`` is the machine's time spent on changing servers, ``waited_s`` that of requests."""

    num_uses: int = 0
    """Requests that were let in."""
    num_hits: int = 0
    """Those that found their server up and open."""
    num_loads: int = 0
    num_wakes: int = 0
    num_sleeps: int = 0
    num_stops: int = 0
    num_failed: int = 0
    """Loads that failed."""
    num_given_up: int = 0
    """Loads that were cancelled because nobody waited any more and another server needed the memory."""
    lost_s: float = 0.0
    waited_s: float = 0.0


class Changes:
    """Makes one server come up or go. Each returns the state that it leads to."""

    def __init__(self, host: ServerHost, limits: ResidencyLimits, clock: Clock, counts: Counts) -> None:
        self._host = host
        self._limits = limits
        self._clock = clock
        self._counts = counts

    async def load(self, server: Server) -> ServerState:
        seconds = await self._timed(server, self._host.load, self._limits.load_timeout_s, "become ready")
        server.times.load.add(seconds)
        server.num_loads += 1
        self._counts.num_loads += 1
        return ServerState.AWAKE

    async def wake(self, server: Server) -> ServerState:
        seconds = await self._timed(server, self._host.wake, self._limits.change_timeout_s, "wake")
        server.times.wake.add(seconds)
        self._counts.num_wakes += 1
        return ServerState.AWAKE

    async def sleep(self, server: Server) -> ServerState:
        """A server that does not fall asleep is stopped."""
        try:
            seconds = await self._timed(server, self._host.sleep, self._limits.change_timeout_s, "fall asleep")
        except ExpertError as error:
            log.warning("server %r does not fall asleep and is stopped: %s", server.id, error)
            return await self.stop(server)
        server.times.sleep.add(seconds)
        self._counts.num_sleeps += 1
        return ServerState.ASLEEP

    async def stop(self, server: Server) -> ServerState:
        await self._timed(server, self._host.stop, self._limits.change_timeout_s, "stop")
        self._counts.num_stops += 1
        return ServerState.GONE

    async def _timed(self, server: Server, change: Callable[[str], Awaitable[None]], timeout_s: float, what: str) -> float:
        """The seconds that *change* took. Raises ``ExpertError``."""
        started = self._clock()
        try:
            async with asyncio.timeout(timeout_s):
                await change(server.id)
        except TimeoutError as error:
            raise ExpertTimeout(f"server {server.id!r} did not {what} within {timeout_s:g} s") from error
        finally:
            self._counts.lost_s += self._clock() - started
        return self._clock() - started


def load_failed(server_id: str, cause: BaseException) -> ExpertError:
    """What each request that waited for the server is told: the cause's kind and words, never to be tried again at once, since a
    load that failed took its time and would fail again."""
    msg = f"server {server_id!r} could not be loaded: {str(cause) or type(cause).__name__}"
    told = ExpertError(msg)
    if isinstance(cause, ExpertError):
        # The kind in the error tree: a host's own kinds may be made otherwise.
        kind = next(kind for kind in type(cause).__mro__ if kind.__module__ == ExpertError.__module__ and issubclass(kind, ExpertError))
        told = kind(msg, status=cause.status, retry_after_s=cause.retry_after_s, retryable=False, expert_at_fault=cause.expert_at_fault)
    told.__cause__ = cause
    return told
