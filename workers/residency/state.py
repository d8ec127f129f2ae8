"""What is remembered about each server of a host, and who waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from workers.residency.measures import Times
from workers.residency.servers import Action, Resident, ServerSpec


class ServerState(StrEnum):
    GONE = "gone"
    LOADING = "loading"
    AWAKE = "awake"
    FALLING_ASLEEP = "falling asleep"
    ASLEEP = "asleep"
    WAKING = "waking"
    STOPPING = "stopping"
    STUCK = "stuck"
    """It could not be stopped: it serves nothing and holds its memory."""


COMING_UP = frozenset({ServerState.LOADING, ServerState.WAKING})


class Stage(StrEnum):
    """What a waiting request waits for."""

    QUEUED = "queued"
    """Others come first, or the servers in the way still serve."""
    MAKING_ROOM = "making room"
    LOADING = "loading"
    WAKING = "waking"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the wait for a server is."""

    server_id: str
    stage: Stage
    num_ahead: int
    """Servers that are served before this one."""
    elapsed_s: float
    """In this stage, of loading and waking; else 0."""
    expected_s: float
    """Of loading or waking, as measured so far; queueing is not in it."""

    def __str__(self) -> str:
        if self.stage in {Stage.LOADING, Stage.WAKING}:
            spent = f" for {self.elapsed_s:.0f} of" if self.elapsed_s >= 1 else ", takes"
            return f"{self.server_id}: {self.stage}{spent} about {self.expected_s:.0f} s"
        behind = f" behind {self.num_ahead} other{'s' if self.num_ahead > 1 else ''}" if self.num_ahead else ""
        return f"{self.server_id}: {self.stage}{behind}"


class Waiter:
    """One request that waits."""

    def __init__(self, ticket: int) -> None:
        self.ticket = ticket
        """Lower came earlier."""
        self.granted = False
        self.error: Exception | None = None
        self.stirred = asyncio.Event()
        """Set whenever there is something to tell it."""

    def grant(self) -> None:
        self.granted = True
        self.stirred.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.stirred.set()


@dataclass(slots=True)
class Server:
    """One server as it is now."""

    spec: ServerSpec
    times: Times
    state: ServerState = ServerState.GONE
    held_mb: float = 0.0
    """Memory that it holds at this moment, or may hold."""
    since: float = 0.0
    """When it came into its state."""
    pinned: bool = False
    wanted: bool = False
    """Prefetched, and not up yet."""
    asked: Action | None = None
    """Somebody wants it to go, as soon as it is idle."""
    num_holders: int = 0
    last_use: int = 0
    used_at: float | None = None
    waiters: deque[Waiter] = field(default_factory=deque)
    task: asyncio.Task[ServerState] | None = None
    """What is done to it now."""
    trouble: BaseException | None = None
    """Why it is stuck."""
    rests: bool = False
    """It is stuck, and it is too early to try again."""
    given_up: bool = False
    """It stops because its load was cancelled."""
    next_spec: ServerSpec | None = None
    """Declared while it held memory; counts once it is gone."""
    told: tuple[Stage, int] | None = None
    """What its waiters were told last."""
    num_loads: int = 0

    @property
    def id(self) -> str:
        return self.spec.id

    def declare(self, spec: ServerSpec) -> None:
        """Be *spec* from now on, or once the memory that is held for the old one is free."""
        if self.state is ServerState.GONE:
            self.spec, self.next_spec = spec, None
            self.times.assume(spec)
        else:
            self.next_spec = spec

    def enter(self, state: ServerState, now: float) -> None:
        """Be in *state* from *now* on. On the way down, and when it is stuck there, it holds what it held."""
        self.state, self.since = state, now
        if state is ServerState.AWAKE or state in COMING_UP:
            self.held_mb = self.spec.memory_mb
        elif state is ServerState.ASLEEP:
            self.held_mb = self.spec.asleep_mb or 0.0
        elif state is ServerState.GONE:
            self.held_mb = 0.0
            if self.next_spec is not None:
                self.declare(self.next_spec)

    def resident(self, *, now: float, next_use: float, reuse_probability: float, nearly_done: float) -> Resident | None:
        """What it will hold when what is under way is done; None when that is nothing."""
        if self.state in {ServerState.GONE, ServerState.STOPPING}:
            return None
        speculative = (
            self.state is ServerState.LOADING
            and not self.waiters
            and self.task is not None
            and not self.task.done()
            and now - self.since < nearly_done * self.times.load.seconds
        )
        serving = self.state is ServerState.AWAKE and self.num_holders > 0
        moving = self.state in COMING_UP or self.state is ServerState.FALLING_ASLEEP
        sleeps = self.state in {ServerState.ASLEEP, ServerState.FALLING_ASLEEP}
        wake_s = self.times.wake.seconds
        return Resident(
            self.id,
            (self.spec.asleep_mb or 0.0) if sleeps else self.held_mb,
            asleep_mb=self.spec.asleep_mb if self.state is ServerState.AWAKE else None,
            pinned=self.pinned,
            busy=serving or self.rests or (moving and not speculative),
            last_use=self.last_use,
            next_use=next_use,
            reuse_probability=reuse_probability,
            load_s=max(0.0, self.times.load.seconds - wake_s) if sleeps else self.times.load.seconds,
            sleep_s=self.times.sleep.seconds,
            wake_s=wake_s,
            serving=serving,
            speculative=speculative,
        )
