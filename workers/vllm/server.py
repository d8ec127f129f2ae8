"""One server that is kept running."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from domain.errors import Conflict, ConsiliumError, ExpertError, ExpertUnreachable, InvalidRequest
from workers.vllm.adapters import Adapters
from workers.vllm.command import ServerLaunch
from workers.vllm.control import ServerControl
from workers.vllm.process import ServerProcess, StartFailed
from workers.vllm.restart import FailureRow
from workers.vllm.status import RUNNING, ServerState, ServerStatus
from workers.vllm.upkeep import Upkeep

log = logging.getLogger(__name__)


class ManagedServer:
    """Its states, and one task that brings it up, watches it, and brings it up again. Lives on one event loop.

    The task owns the process: it alone starts it, and whatever ends the task stops it. ``stop`` cancels the task; sleep, wake and
    adapters only talk to the process, one at a time.
    """

    def __init__(self, launch: ServerLaunch, upkeep: Upkeep) -> None:
        self.launch = launch
        """What the next start takes."""
        self._upkeep = upkeep
        self._status = ServerStatus(launch.server_id, ServerState.STOPPED, "not started yet", datetime.now(UTC))
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._process: ServerProcess | None = None
        self._running_launch = launch
        """What the process was started with."""
        self._adapters = Adapters(upkeep.premises.limits.max_adapters)
        """They outlive a crash, not a stop."""
        self._row = FailureRow()
        self._failed_at = 0.0
        self._talk = asyncio.Lock()
        self._num_starting = 0
        self._is_handed_over = False
        """Whether somebody was told, since it was started, that it is up."""

    @property
    def status(self) -> ServerStatus:
        process = self._process
        return replace(
            self._status,
            base_url=process.record.base_url if process is not None else None,
            pid=process.pid if process is not None else None,
            adapter_folders=self._adapters.folders,
            num_failures=self._row.num,
            is_outdated=process is not None and self._running_launch != self.launch,
        )

    @property
    def port(self) -> int | None:
        """Where it listens; None while there is no process."""
        return None if self._process is None else self._process.record.port

    # --- up and down ---

    async def start(self) -> None:
        """Return when it answers. Raises ``StartFailed`` when it was given up. If all who wait are cancelled it is stopped."""
        while self._status.state is ServerState.STOPPING:
            await self._changed.wait()
        if self._status.state is ServerState.ASLEEP:
            await self.wake()
        if self._status.state is ServerState.READY:
            self._is_handed_over = True
            return
        if self._task is None or self._task.done():
            self._begin(None)
        self._num_starting += 1
        try:
            while self._status.state in {ServerState.STARTING, ServerState.STOPPING}:
                await self._changed.wait()
        except asyncio.CancelledError:
            came_up_for_nobody = self.status.state is ServerState.READY and not self._is_handed_over
            if self._num_starting == 1 and (came_up_for_nobody or self._status.state is ServerState.STARTING):
                await self.stop()
            raise
        finally:
            self._num_starting -= 1
        if self._status.state not in RUNNING:
            message, _, detail = self._status.reason.partition("\n")
            raise StartFailed(message, detail=detail)
        self._is_handed_over = True

    def take_over(self, process: ServerProcess, adapters: Mapping[str, str], *, asleep: bool) -> None:
        """Go on with a process that was found well, started by an earlier service with this very launch."""
        self._adapters.replace(adapters)
        self._process, self._running_launch = process, self.launch
        self._begin(process)
        self._is_handed_over = True
        self._enter(ServerState.ASLEEP if asleep else ServerState.READY, "was running when the service started")
        self._status = replace(self._status, is_adopted=True)

    async def stop(self) -> None:
        """Return when nothing of it runs. Its failures are forgotten. Raises ``ExpertTimeout`` when it cannot be killed."""
        task = self._task
        if task is None or task.done():
            await self._end()  # nothing, unless it could not be killed before
        else:
            if self._status.state is not ServerState.STOPPING:
                self._enter(ServerState.STOPPING, "was asked to stop")
                task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        self._row = FailureRow()
        self._adapters.replace({})
        if self._status.state is not ServerState.STOPPED:
            self._enter(ServerState.STOPPED, "was asked to stop")

    def _begin(self, found: ServerProcess | None) -> None:
        if found is None:
            self._adapters.replace({})
        self._is_handed_over = False
        self._enter(ServerState.STARTING, "was asked to start")
        self._task = asyncio.create_task(self._run(found), name=f"vllm server {self.launch.server_id}")
        self._task.add_done_callback(self._finished)

    async def _run(self, process: ServerProcess | None) -> None:
        try:
            while True:
                up_s, was_asleep = 0.0, False
                try:
                    if process is None:
                        await self._backed_off()
                        process = await self._up()
                    self._process = process
                    up_at = self._upkeep.clock()
                    why, is_lasting = await self._watch(process), False
                    up_s, was_asleep = self._upkeep.clock() - up_at, self._status.state is ServerState.ASLEEP
                except StartFailed as error:
                    why, is_lasting = f"{error.message}\n{error.detail}".rstrip(), error.is_lasting
                was_up = process is not None
                process = self._process = None
                if self._is_over(why, up_s, is_lasting=is_lasting, was_up=was_up, was_asleep=was_asleep):
                    return
        except asyncio.CancelledError:
            await self._end()
            self._enter(ServerState.STOPPED, "was asked to stop")
            raise

    def _is_over(self, why: str, up_s: float, *, is_lasting: bool, was_up: bool, was_asleep: bool) -> bool:
        """Count a failure; whether it was the last. Enters the state that follows."""
        upkeep = self._upkeep
        self._row, self._failed_at = self._row.after(up_s, upkeep.policy), upkeep.clock()
        given_up = is_lasting or self._row.is_over(upkeep.policy)
        # Asleep it held little memory; started again it would hold all of it, and nobody waits for it.
        if not given_up and not (was_up and (was_asleep or not upkeep.restart)):
            self._enter(ServerState.STARTING, f"is started again (failure {self._row.num} of {upkeep.policy.max_failures}): {why}")
            log.warning("vLLM %s", _headline(self._status.reason))
            return False
        if given_up and not is_lasting:
            why = f"given up after {self._row.num} failures in a row; the last: {why}"
        if given_up:
            self._row = FailureRow()
        self._enter(ServerState.FAILED, why)
        log.error("vLLM %s", _headline(why))
        if was_up:
            upkeep.on_down(self.status)
        return True

    async def _backed_off(self) -> None:
        upkeep = self._upkeep
        wait_s = self._failed_at + self._row.wait_s(upkeep.policy, upkeep.chance()) - upkeep.clock() if self._row.num else 0.0
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    async def _up(self) -> ServerProcess:
        """Started, answering, and with its adapters. Leaves nothing behind when it fails; when cancelled, ``_run`` ends it."""
        upkeep, launch = self._upkeep, self.launch
        began = upkeep.clock()
        try:
            process = await ServerProcess.spawned(launch, upkeep.installation.program_for(launch), upkeep.premises)
            self._process, self._running_launch = process, launch
            control = self._control_of(process)
            await process.ready(control, launch.served_name)
            lost = await self._adapters.restore(control)
        except ConsiliumError as error:
            await self._end()
            if isinstance(error, StartFailed):
                raise
            raise StartFailed(error.message, is_lasting=isinstance(error, InvalidRequest)) from error
        load_s = upkeep.clock() - began
        self._measure(load_s=load_s, memory_mb=await process.memory_mb())
        self._enter(ServerState.READY, f"was ready after {load_s:.1f} s{lost}")
        return process

    async def _watch(self, process: ServerProcess) -> str:
        """Return what happened, when it is down."""
        limits, control, num_failed = self._upkeep.premises.limits, self._control_of(process), 0
        while not await process.gone_within(limits.probe_s):
            ailment = await control.ailment()
            num_failed = num_failed + 1 if ailment is not None else 0
            if num_failed >= limits.max_failed_probes and not process.is_gone:
                await process.stop()
                return f"server {self.launch.server_id!r} was ended because it hung: {ailment}"
        return await process.obituary()

    async def _end(self) -> None:
        if self._process is not None:
            await self._process.stop()
            self._process = None

    def _finished(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        # Its processes cannot be killed, or a bug: the next `stop` tries again.
        log.error("vLLM server %r is in trouble", self.launch.server_id, exc_info=error)
        self._enter(ServerState.FAILED, str(error))

    # --- while it runs ---

    async def sleep(self) -> None:
        """Return when it sleeps. Raises ``Conflict`` when it is not up, ``ExpertError`` when it does not fall asleep."""
        async with self._talk:
            if self._status.state is ServerState.ASLEEP:
                return
            process, control = self._running("put to sleep", ServerState.READY)
            began = self._upkeep.clock()
            await _settled(control.sleep(), control, asleep=True)
            sleep_s = self._upkeep.clock() - began
            self._measure(sleep_s=sleep_s, asleep_mb=await process.memory_mb())
            self._enter_if_still(process, ServerState.ASLEEP, f"fell asleep in {sleep_s:.2f} s")

    async def wake(self) -> None:
        """Return when it answers again. Raises as ``sleep`` does."""
        async with self._talk:
            if self._status.state is ServerState.READY:
                return
            process, control = self._running("woken", ServerState.ASLEEP)
            began = self._upkeep.clock()
            await _settled(control.wake(), control, asleep=False)
            wake_s = self._upkeep.clock() - began
            self._measure(wake_s=wake_s)
            self._enter_if_still(process, ServerState.READY, f"woke in {wake_s:.2f} s")

    async def load_adapter(self, name: str, path: str) -> None:
        """Return when calls may name *name*: the LoRA adapter in folder *path*. At once when they may already.

        Raises ``InvalidRequest`` when it cannot be loaded, ``Conflict`` when the server is not up, has another adapter of that name or
        no place for more, ``ExpertError`` when the server fails at it.
        """
        async with self._talk:
            _, control = self._running("given an adapter", ServerState.READY)
            await self._adapters.load(name, path, self._running_launch, control)

    async def unload_adapter(self, name: str) -> None:
        """Return when the server has forgotten it; at once when it does not have it. Raises as ``load_adapter`` does."""
        async with self._talk:
            _, control = self._running("relieved of an adapter", ServerState.READY)
            await self._adapters.unload(name, control)

    def _running(self, what: str, state: ServerState) -> tuple[ServerProcess, ServerControl]:
        process = self._process
        if process is None or self._status.state is not state:
            raise Conflict(f"server {self.launch.server_id!r} is {self._status.state} and cannot be {what}: it must be {state}")
        return process, self._control_of(process)

    def _control_of(self, process: ServerProcess) -> ServerControl:
        return self._upkeep.control(process.record.server_id, process.record.port)

    def _enter(self, state: ServerState, reason: str) -> None:
        adopted = self._status.is_adopted and state not in {ServerState.STARTING, ServerState.STOPPED, ServerState.FAILED}
        self._status = replace(self._status, state=state, reason=reason, since=datetime.now(UTC), is_adopted=adopted)
        self._changed.set()
        self._changed = asyncio.Event()

    def _enter_if_still(self, process: ServerProcess, state: ServerState, reason: str) -> None:
        if self._process is not process or process.is_gone:
            raise ExpertUnreachable(f"server {self.launch.server_id!r} went down meanwhile")
        self._enter(state, reason)

    def _measure(self, **seen: float) -> None:
        self._status = replace(self._status, measured=replace(self._status.measured, **seen))


async def _settled(change: Awaitable[None], control: ServerControl, *, asleep: bool) -> None:
    """*change* done; if it failed, perhaps only its answer was lost."""
    try:
        await change
    except ExpertError:
        with suppress(ExpertError):
            if await control.is_sleeping() is asleep:
                return
        raise


def _headline(reason: str) -> str:
    """Without the end of the server's log, which is kept anyway."""
    return reason.split("\n", 1)[0]
