"""The small process between the service and one vLLM server, as containerd's shim stands between containerd and a container.

    service ── shim ── server ── engine processes

It starts the server as a session of its own, writes its output to a bounded log, and ends everything that it started: when the
service asks (SIGTERM), when the server's first process is gone, or when no service has lived for the grace period. So nothing
is left behind when the service is killed, a service that starts again in time finds its servers loaded, and a server's output
always has a reader. Whatever the server starts comes back to the shim when its parents die (PR_SET_CHILD_SUBREAPER), also what
left the process group. If the shim itself is killed, the kernel sends the server SIGTERM (PR_SET_PDEATHSIG; safe here, because
the signal comes when the *thread* that forked ends, and the shim has one), and the service finds the rest by its mark.

Run as a script, with a description (``Description``) as its one argument and descriptors to keep open after it is started. It
imports the standard library only, and little of it, so that it starts in milliseconds and takes some 10 MB.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import IO, Any, TypedDict, cast

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_ROUND_S = 0.2
_COULD_NOT_RUN = 127
"""The exit code of a shell for a program that is not there."""


class Description(TypedDict):
    """What the shim has to do. Times are seconds."""

    record: dict[str, Any]
    """What the service wants to find in the state file; the shim adds ``shim``, ``server`` and ``exit``."""
    argv: list[str]
    folder: str
    """The server's: its working directory, with ``state.json``, ``server.log`` and ``server.log.1``."""
    owner_file: str
    """Says who owns the servers: ``{"pid": …, "started": …}``."""
    owner_poll_s: float
    orphan_grace_s: float
    stop_grace_s: float
    kill_timeout_s: float
    max_log_bytes: int


def start_ticks(pid: int) -> int | None:
    """When process *pid* started, in clock ticks since the machine did; None when there is none, or only its exit status is left."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def _stat(pid: int) -> list[bytes] | None:
    """State, parent and so on of a process that still runs, as of the third field of ``man proc_pid_stat``."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123 - pathlib takes longer to import than all the rest
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if len(fields) < 20 or fields[0] in (b"Z", b"X") else fields


def write_json(path: str, value: object) -> None:
    """Replace the file at *path* as a whole, so that no reader sees half of it."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(value, file)
    os.replace(f"{path}.new", path)  # noqa: PTH105


class Log:
    """The server's output: one file, and one with what came before. A full disk loses lines, never the server."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file: IO[bytes] | None = None
        self._size = 0

    def write(self, data: bytes) -> None:
        try:
            if self._file is not None and self._size and self._size + len(data) > self._max_bytes:
                self.close()
                os.replace(self._path, f"{self._path}.1")  # noqa: PTH105
            if self._file is None:
                self._file = open(self._path, "ab", buffering=0)  # noqa: PTH123, SIM115
                self._size = self._file.tell()
            self._size += self._file.write(data) or 0
        except OSError:
            return

    def close(self) -> None:
        """Give the file back; the next line opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def note(self, text: str) -> None:
        """A line of our own."""
        self.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode())


class Shim:
    def __init__(self, description: Description) -> None:
        self._told = description
        self._record = {**description["record"], "shim": _identity(os.getpid()), "server": None, "exit": None}
        self.log = Log(os.path.join(description["folder"], "server.log"), description["max_log_bytes"])  # noqa: PTH118
        self._server: int | None = None
        """The pid of its first process, while that lives. It is the number of its group, too."""
        self._cause: str | None = None
        """Why everything is being ended; None while the server is to run."""
        self._kill_at = 0.0
        self._owner_seen = time.monotonic()
        self._status: dict[str, int | None] = {"code": None, "signal": None}

    def run(self) -> None:
        """Start the server, and return when everything that it started is gone."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda _number, _frame: None)  # what arrived is read from the wake-up pipe
        self._save()
        output = self._start()
        if output is None:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while self._children_left():
                for key, _ in selector.select(self._pause_s()):
                    if key.fd == woken:
                        self._signalled(os.read(woken, 4096))
                    elif data := _read(output):
                        self.log.write(data)
                    else:  # everybody who could write is gone, or has closed it
                        selector.unregister(output)
                self._look_after()
        os.set_blocking(output, False)
        while data := _read(output):
            self.log.write(data)
        self._ended()

    def _start(self) -> int | None:
        """The server's output; None when it cannot be run."""
        shim, argv = os.getpid(), self._told["argv"]
        reader, writer = os.pipe()
        self.log.note(f"starts: {' '.join(argv)}")

        def tie_to_us() -> None:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != shim:  # too late: we died before the kernel knew what to do then
                os._exit(_COULD_NOT_RUN)

        try:
            process = subprocess.Popen(  # noqa: S603 - the service's own command line, no shell
                argv,
                cwd=self._told["folder"],
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                start_new_session=True,
                preexec_fn=tie_to_us,  # noqa: PLW1509 - there is one thread
            )
        except OSError as error:
            self.log.note(f"cannot be run: {error}")
            self._cause, self._status["code"] = "could_not_run", _COULD_NOT_RUN
            self._ended()
            return None
        os.close(writer)
        self._server = process.pid
        process.returncode = 0  # we reap it ourselves, with everything else
        self._record["server"] = _identity(process.pid)
        self._save()
        return reader

    def _signalled(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers:
            self._end("asked")

    def _look_after(self) -> None:
        """What time brings: a service that is gone for too long, an end that takes too long."""
        now = time.monotonic()
        if self._cause is not None:
            if now >= self._kill_at:
                self._kill()
        elif self._has_owner():
            self._owner_seen = now
        elif now - self._owner_seen >= self._told["orphan_grace_s"]:
            self._end("orphaned")

    def _pause_s(self) -> float:
        if self._cause is None:
            return self._told["owner_poll_s"]
        return max(_KILL_ROUND_S, min(1.0, self._kill_at - time.monotonic()))

    def _has_owner(self) -> bool:
        try:
            with open(self._told["owner_file"], encoding="utf-8") as file:  # noqa: PTH123
                owner = json.load(file)
            return start_ticks(int(owner["pid"])) == int(owner["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _end(self, cause: str) -> None:
        """Ask the server to end: its first process, which ends its own. What is left then is asked when that one is gone."""
        if self._cause is None:
            self._cause = cause
            self._kill_at = time.monotonic() + self._told["stop_grace_s"]
            self.log.note({"asked": "is asked to end", "orphaned": "is asked to end: no service lives that it belongs to"}[cause])
            if self._server is not None:
                os.kill(self._server, signal.SIGTERM)  # not reaped yet, so that the number is still its own

    def _children_left(self) -> bool:
        """Take the exit statuses that there are. Whether anything still runs, and is not given up because it cannot be killed."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return self._cause is None or time.monotonic() < self._kill_at + self._told["kill_timeout_s"]
            if pid == self._server:
                self._server_is_gone(pid, status)

    def _server_is_gone(self, pid: int, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        self._status = {"code": code, "signal": None} if code >= 0 else {"code": None, "signal": -code}
        self._server = None
        if self._cause is None:
            self._cause = "itself"
            self._kill_at = time.monotonic() + self._told["stop_grace_s"]
        for child in (-pid, *_children(os.getpid())):
            _send(child, signal.SIGTERM)

    def _kill(self) -> None:
        if self._server is not None:
            _send(-self._server, signal.SIGKILL)
        for child in _children(os.getpid()):  # each with its group, so that a family goes in one round
            _send(-child, signal.SIGKILL)
            _send(child, signal.SIGKILL)

    def _ended(self) -> None:
        left = _children(os.getpid())
        what = f"exit code {self._status['code']}" if self._status["signal"] is None else f"signal {self._status['signal']}"
        self.log.note(f"has ended with {what}" + (f", but {len(left)} of its processes cannot be killed" if left else ""))
        self._record["exit"] = {**self._status, "cause": self._cause, "num_left": len(left)}
        self._save()

    def _save(self) -> None:
        try:
            write_json(os.path.join(self._told["folder"], "state.json"), self._record)  # noqa: PTH118
        except OSError as error:
            self.log.note(f"the state file cannot be written: {error}")


def _identity(pid: int) -> dict[str, int | None]:
    return {"pid": pid, "started": start_ticks(pid)}


def _children(parent: int) -> list[int]:
    """The children of *parent* that still run."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    return [pid for pid in pids if (fields := _stat(pid)) is not None and int(fields[1]) == parent]


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return b""


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def main() -> None:
    shim = Shim(cast(Description, json.loads(sys.argv[1])))
    try:
        shim.run()
    except Exception:
        import traceback

        shim.log.note(traceback.format_exc())
        raise


if __name__ == "__main__":
    main()
