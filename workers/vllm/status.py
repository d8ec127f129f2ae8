"""What is told about a managed server. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class ServerState(StrEnum):
    """Where a server stands."""

    STOPPED = "stopped"
    """Not running, and nobody wants it to."""
    STARTING = "starting"
    """On its way up; also while it waits before another attempt."""
    READY = "ready"
    """It answers."""
    ASLEEP = "asleep"
    """It runs and answers nothing until it is woken."""
    STOPPING = "stopping"
    FAILED = "failed"
    """It went down, or did not come up, and is not tried again until somebody asks; the reason says why."""


RUNNING = frozenset({ServerState.READY, ServerState.ASLEEP})


@dataclass(frozen=True, slots=True)
class Measured:
    """What was seen of one server, the latest of each; None when it was not seen yet."""

    load_s: float | None = None
    """From its start until it answered, its adapters included."""
    sleep_s: float | None = None
    wake_s: float | None = None
    memory_mb: float | None = None
    """Of the machine's memory (PSS of all its processes), when it became ready. Keys and values that it reserves count once they
    are written; a GPU's memory is not in it."""
    asleep_mb: float | None = None
    """The same while it slept."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server at one moment."""

    server_id: str
    state: ServerState
    reason: str
    """How it came into its state, in a line; for a server that went down the end of its log follows. The first line is for
    everybody, the others, with paths and all, are for who runs the service."""
    since: datetime
    """When it came into its state."""
    base_url: str | None = None
    """For calls, with ``/v1``; None while there is no process."""
    pid: int | None = None
    """Of its first process, whose group holds the others."""
    adapter_folders: Mapping[str, str] = field(default_factory=dict)
    """LoRA adapters that it serves beside the model itself: name to the folder that it came from."""
    num_failures: int = 0
    """Crashes and failed starts since it last ran well."""
    is_adopted: bool = False
    """Whether it was found running, left by an earlier service."""
    is_outdated: bool = False
    """Whether another launch was declared since it was started; the next start takes it up."""
    measured: Measured = Measured()

    @property
    def adapters(self) -> tuple[str, ...]:
        """Their names, sorted."""
        return tuple(sorted(self.adapter_folders))
