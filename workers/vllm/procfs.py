"""Processes as Linux tells of them in /proc: who lives, which are a server's, and what memory they hold.

A server's processes carry a mark in their environment, which children inherit, also those that leave the group and those whose
parents died. A pid alone proves nothing: numbers are used again.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from workers.vllm.shim import start_ticks

MARK = "CONSILIUM_MANAGED_SERVER"
"""The variable of the environment. Its value is ``mark_of(…)``."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, for good: a number that is used again comes with another start."""

    pid: int
    started: int
    """Clock ticks since the machine started."""

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """Of the process that has this number now; None when there is none, or only its exit status is left."""
        started = start_ticks(pid)
        return None if started is None else cls(pid, started)

    @property
    def is_alive(self) -> bool:
        return start_ticks(self.pid) == self.started

    def opened(self) -> int | None:
        """A descriptor of the process (``pidfd_open``), to be closed by the caller; None when it is gone. It becomes readable when
        the process ends, and never means another."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return None
        # A child that has ended but was not waited for still is itself.
        if start_ticks(self.pid) in (self.started, None):
            return descriptor
        os.close(descriptor)
        return None

    def send(self, number: signal.Signals) -> None:
        """Signal it, if it is still there."""
        descriptor = self.opened()
        if descriptor is None:
            return
        try:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class MarkedProcess:
    """A process of some server."""

    identity: ProcessIdentity
    mark: str


def mark_of(root: Path, server_id: str = "", token: str = "") -> str:
    """The mark of one start of a server whose folder lies in *root*; the beginning of the marks of all its starts without *token*,
    and of all servers there without *server_id*."""
    # Two slashes are in no absolute path, so that no folder's mark begins with another folder's.
    return f"{root}//{server_id}//{token}" if server_id else f"{root}//"


def marked(beginning: str) -> list[MarkedProcess]:
    """Every process that may be read and whose mark begins so. Reads all of /proc: some ten milliseconds."""
    wanted = os.fsencode(f"{MARK}={beginning}")
    found = []
    for pid in _pids():
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:  # another user's, or gone
            continue
        mark = next((entry for entry in environ.split(b"\0") if entry.startswith(wanted)), None)
        if mark is not None and (identity := ProcessIdentity.of(pid)) is not None:
            found.append(MarkedProcess(identity, os.fsdecode(mark).partition("=")[2]))
    return found


def memory_mb(pids: list[int]) -> float:
    """MB (10**6 bytes) that these processes hold in memory; what several share is counted once, in parts (PSS)."""
    return sum(map(_pss_kb, pids)) * 1024 / 1e6


def _pss_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - no path is needed
