"""One start of one vLLM server: a shim, and everything below it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from domain.deadline import Deadline
from domain.errors import ExpertError, ExpertUnreachable
from workers.vllm.command import ServerLaunch, VllmProgram, argument_list, environment, fingerprint
from workers.vllm.control import ServerControl
from workers.vllm.leftovers import end_marked
from workers.vllm.limits import VllmLimits
from workers.vllm.logs import tail
from workers.vllm.port import HeldPort
from workers.vllm.procfs import MARK, ProcessIdentity, mark_of, marked, memory_mb
from workers.vllm.records import ServerExit, ServerRecord, boot_id, log_file, owner_file, read_record, server_folder
from workers.vllm.shim import Description

_SHIM = Path(__file__).with_name("shim.py")
_SHIM_SPARE_S = 5.0
"""Beyond the times that the shim gives the server: for the shim itself to be gone."""


class StartFailed(ExpertUnreachable):
    """A server did not become ready. The message is for whoever asked an expert on it."""

    def __init__(self, message: str, *, detail: str = "", is_lasting: bool = False) -> None:
        super().__init__(message, retryable=False)
        self.detail = detail
        """For whoever runs the servers: paths, and the end of the log. Lines, perhaps none."""
        self.is_lasting = is_lasting
        """Whether the next start must fail alike."""


@dataclass(frozen=True, slots=True)
class Premises:
    """Where and how servers are run."""

    root: Path
    """The folder of all servers, absolute."""
    inherited: Mapping[str, str]
    """The service's own environment."""
    limits: VllmLimits


class ServerProcess:
    """From ``spawned`` or ``adopted`` until ``ended``. Lives on one event loop."""

    def __init__(self, premises: Premises, record: ServerRecord, shim: ProcessIdentity, child: subprocess.Popen[bytes] | None) -> None:
        self._premises = premises
        self.record = record
        self._shim = shim
        self._child = child
        self._gone = asyncio.Event()
        self._descriptor = shim.opened()
        if self._descriptor is None:
            self._gone.set()
        else:
            asyncio.get_running_loop().add_reader(self._descriptor, self._shim_is_gone)

    @classmethod
    async def spawned(cls, launch: ServerLaunch, program: VllmProgram, premises: Premises) -> ServerProcess:
        """Start it. What an earlier start may have left is ended first. Raises ``StartFailed`` when it cannot be run at all."""
        root, server_id = premises.root, launch.server_id
        variables = environment(launch, program, premises.inherited)
        if await asyncio.to_thread(shutil.which, program.argv[0], path=variables.get("PATH")) is None:
            msg = f"server {server_id!r} cannot be started: its program is not there; is vLLM installed (`make vllm`)?"
            raise StartFailed(msg, detail=f"there is no program {program.argv[0]}", is_lasting=True)
        await end_marked(mark_of(root, server_id), premises.limits)
        folder = server_folder(root, server_id)
        try:
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True, mode=0o700)
            port = HeldPort()
        except OSError as error:
            raise _no_start(server_id, error) from error
        record = ServerRecord(server_id, fingerprint(launch, program), secrets.token_hex(8), port.number, boot_id())
        variables[MARK] = mark_of(root, server_id, record.token)
        description = _description(record, argument_list(launch, program, port=port.number), premises)
        # Not in a thread, where a cancelled start would lose it. It takes a millisecond: Python forks with vfork here.
        try:
            child = _started(description, variables, port)
        except OSError as error:
            raise _no_start(server_id, error) from error
        finally:
            port.close()
        return cls(premises, record, ProcessIdentity.of(child.pid) or ProcessIdentity(child.pid, 0), child)

    @classmethod
    def adopted(cls, record: ServerRecord, premises: Premises) -> ServerProcess:
        """Take over what an earlier service has left; its record has a shim."""
        assert record.shim is not None  # noqa: S101 - `ServerRecord.is_alive`
        return cls(premises, record, record.shim, None)

    @property
    def is_gone(self) -> bool:
        """Whether nothing looks after it any more; what the shim could not end is gone only after ``stop``."""
        return self._gone.is_set()

    @property
    def pid(self) -> int | None:
        """Of the server's first process, as far as the state file has told."""
        return self.record.server.pid if self.record.server is not None else None

    async def gone_within(self, seconds: float) -> bool:
        """Wait for it to be gone, at most so long; whether it is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        return self.is_gone

    async def ready(self, control: ServerControl, served_name: str) -> None:
        """Return when it is healthy and serves *served_name*. Raises ``StartFailed`` when it ends, or is not ready in time."""
        limits = self._premises.limits
        deadline = Deadline.after(limits.start_timeout_s)
        while not self.is_gone and (ailment := await self._unready(control, served_name)) is not None:
            if deadline.expired:
                raise await self._failed(f"was not ready within {limits.start_timeout_s:g} s ({ailment})")
            await self.gone_within(min(limits.start_poll_s, deadline.remaining_s))
        if self.is_gone:
            ended = await self.ended()
            raise await self._failed(f"{ended} before it was ready", is_lasting=ended.is_lasting)
        await self._read_record()

    async def _unready(self, control: ServerControl, served_name: str) -> str | None:
        """What is still missing; None when nothing is."""
        if (ailment := await control.ailment()) is not None:
            return ailment
        try:
            mistake = await control.mistake(served_name)
        except ExpertError as error:
            return error.message
        if mistake is not None:  # what a healthy server serves does not change by waiting
            raise await self._failed(f"is up, but {mistake}", is_lasting=True)
        return None

    async def stop(self) -> None:
        """Return when all its processes are gone. Raises ``ExpertTimeout`` when they cannot be killed.

        The shim asks the server to end, and kills what is left after the grace period; should the shim itself fail at it, it and
        everything with the mark is killed.
        """
        limits = self._premises.limits
        if not self.is_gone:
            self._shim.send(signal.SIGTERM)
            if not await self.gone_within(limits.stop_grace_s + limits.kill_timeout_s + _SHIM_SPARE_S):
                self._shim.send(signal.SIGKILL)
                await self.gone_within(_SHIM_SPARE_S)
        await self.ended()

    async def ended(self) -> ServerExit:
        """How it ended, once it is gone. Ends what the shim could not, because it was killed."""
        await self._read_record()
        if self.record.exit is None or self.record.exit.num_left:
            await end_marked(self._mark, self._premises.limits)
        return self.record.exit or ServerExit()

    async def obituary(self) -> str:
        """How it ended in a line, then the last lines of its log."""
        return "\n".join((f"server {self.record.server_id!r} {await self.ended()}", *await self._last_lines()))

    async def memory_mb(self) -> float:
        """MB that all its processes hold now, shared pages counted once, without the shim. Not a GPU's."""

        def measured() -> float:
            return memory_mb([process.identity.pid for process in marked(self._mark) if process.identity != self._shim])

        return await asyncio.to_thread(measured)

    @property
    def _mark(self) -> str:
        return mark_of(self._premises.root, self.record.server_id, self.record.token)

    async def _failed(self, what: str, *, is_lasting: bool = False) -> StartFailed:
        return StartFailed(f"server {self.record.server_id!r} {what}", detail="\n".join(await self._last_lines()), is_lasting=is_lasting)

    async def _last_lines(self) -> list[str]:
        path = log_file(self._premises.root, self.record.server_id)
        return await asyncio.to_thread(tail, path, self._premises.limits.log_tail_lines)

    async def _read_record(self) -> None:
        record = await asyncio.to_thread(read_record, server_folder(self._premises.root, self.record.server_id))
        if record is not None and record.token == self.record.token:
            self.record = record

    def _shim_is_gone(self) -> None:
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
        if self._child is not None:
            self._child.wait()  # it has ended: takes its exit status, and no time
        self._gone.set()


def _no_start(server_id: str, error: OSError) -> StartFailed:
    what = error.strerror or type(error).__name__
    return StartFailed(f"server {server_id!r} cannot be started: {what}", detail=str(error))


def _description(record: ServerRecord, argv: tuple[str, ...], premises: Premises) -> Description:
    limits = premises.limits
    return Description(
        record=record.to_json(),
        argv=list(argv),
        folder=str(server_folder(premises.root, record.server_id)),
        owner_file=str(owner_file(premises.root)),
        owner_poll_s=limits.owner_poll_s,
        orphan_grace_s=limits.orphan_grace_s,
        stop_grace_s=limits.stop_grace_s,
        kill_timeout_s=limits.kill_timeout_s,
        max_log_bytes=limits.max_log_bytes,
    )


def _started(description: Description, variables: Mapping[str, str], port: HeldPort) -> subprocess.Popen[bytes]:
    # -I, -S: nothing of this service's environment, and no packages. The shim keeps the port's descriptor without knowing it.
    return subprocess.Popen(  # noqa: S603 - our own file, no shell
        [sys.executable, "-I", "-S", str(_SHIM), json.dumps(description)],
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(port.descriptor,),
        start_new_session=True,
    )
