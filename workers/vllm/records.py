"""What is kept in the data folder about managed servers.

``<root>/owner.lock`` is held by the service that manages them, ``<root>/owner.json`` says who that is, and in
``<root>/<server id>/`` are ``state.json``, ``server.log`` and ``server.log.1``.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from domain.errors import Conflict
from workers.vllm.procfs import ProcessIdentity
from workers.vllm.shim import write_json

FORMAT = 1
"""Of the state file. What another version wrote is not read: its server is ended."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Differs after every start of the machine: ticks since then mean nothing to another."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def owner_file(root: Path) -> Path:
    return root / "owner.json"


def server_folder(root: Path, server_id: str) -> Path:
    return root / server_id


def log_file(root: Path, server_id: str) -> Path:
    return server_folder(root, server_id) / "server.log"


@dataclass(frozen=True, slots=True)
class ServerExit:
    """How a server ended."""

    code: int | None = None
    signal: int | None = None
    cause: str = "unknown"
    """``itself``; ``asked``, by us; ``orphaned``: no service lived; ``could_not_run``; ``unknown``: its shim was killed."""
    num_left: int = 0
    """Processes that the shim could not kill."""

    @property
    def is_lasting(self) -> bool:
        """Whether the next start must end alike: wrong arguments (argparse's 2), or a program that cannot be run (a shell's 126, 127)."""
        return self.code in (2, 126, 127)

    def __str__(self) -> str:
        if self.signal is not None:
            return f"was killed by {_signal_name(self.signal)}"
        if self.code is not None:
            return f"ended with exit code {self.code}"
        return "is gone, nobody saw how"


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """The state file of one start of a server."""

    server_id: str
    fingerprint: str
    """``command.fingerprint`` of what was started."""
    token: str
    """Different for every start."""
    port: int
    boot: str
    shim: ProcessIdentity | None = None
    server: ProcessIdentity | None = None
    exit: ServerExit | None = None

    @property
    def base_url(self) -> str:
        """For calls, with ``/v1``."""
        return f"http://127.0.0.1:{self.port}/v1"

    def to_json(self) -> dict[str, Any]:
        """What the shim is given; it adds the rest."""
        return {
            "format": FORMAT,
            "server_id": self.server_id,
            "fingerprint": self.fingerprint,
            "token": self.token,
            "port": self.port,
            "boot": self.boot,
        }

    @property
    def is_alive(self) -> bool:
        """Whether its shim looks after it, here and now."""
        return self.exit is None and self.boot == boot_id() and self.shim is not None and self.shim.is_alive


def read_record(folder: Path) -> ServerRecord | None:
    """The record in a server's folder; None when there is none that can be read."""
    try:
        told = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            return None
        return ServerRecord(
            server_id=str(told["server_id"]),
            fingerprint=str(told["fingerprint"]),
            token=str(told["token"]),
            port=int(told["port"]),
            boot=str(told["boot"]),
            shim=_identity(told["shim"]),
            server=_identity(told["server"]),
            exit=_exit(told["exit"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_records(root: Path) -> list[ServerRecord]:
    """Of all servers that have a folder in *root*."""
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return [record for folder in folders if (record := read_record(folder)) is not None and record.server_id == folder.name]


class Ownership:
    """One service's right to the servers of a folder. Ends with ``release``, or with the process."""

    def __init__(self, root: Path, lock: IO[str]) -> None:
        self._root = root
        self._lock = lock

    @classmethod
    def take(cls, root: Path) -> Ownership:
        """Raises ``Conflict`` while another process has it."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (root / "owner.lock").open("a", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            msg = f"another process{_named(root)} manages the vLLM servers of {root}; stop it, or give this one a data folder of its own"
            raise Conflict(msg) from error
        try:
            own = ProcessIdentity.of(os.getpid())
            write_json(str(owner_file(root)), {"pid": os.getpid(), "started": own.started if own else None})
        except BaseException:
            lock.close()
            raise
        return cls(root, lock)

    def release(self) -> None:
        """Servers that still run live on for their grace period."""
        owner_file(self._root).unlink(missing_ok=True)
        self._lock.close()


def _named(root: Path) -> str:
    try:
        return f" (pid {int(json.loads(owner_file(root).read_text(encoding='utf-8'))['pid'])})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _identity(told: Mapping[str, Any] | None) -> ProcessIdentity | None:
    return None if told is None or told["started"] is None else ProcessIdentity(int(told["pid"]), int(told["started"]))


def _exit(told: Mapping[str, Any] | None) -> ServerExit | None:
    return None if told is None else ServerExit(told["code"], told["signal"], str(told["cause"]), int(told["num_left"]))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
