"""All vLLM servers that one service manages."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import aiohttp

from domain.deadline import Clock
from domain.errors import Conflict, ConsiliumError, NotFound
from domain.nearest import did_you_mean
from workers.vllm.command import Installation, ServerLaunch, fingerprint
from workers.vllm.control import ServerControl, control_session
from workers.vllm.leftovers import end_marked
from workers.vllm.limits import VllmLimits
from workers.vllm.logs import tail
from workers.vllm.process import Premises, ServerProcess
from workers.vllm.procfs import mark_of
from workers.vllm.records import Ownership, ServerRecord, log_file, read_records
from workers.vllm.restart import RestartPolicy
from workers.vllm.server import ManagedServer
from workers.vllm.status import RUNNING, ServerState, ServerStatus
from workers.vllm.upkeep import Upkeep

log = logging.getLogger(__name__)


class Supervisor:
    """Starts, watches and stops declared servers. Linux only. Lives on one event loop.

    Methods that name a server raise ``NotFound`` when it is not declared; what else they raise is said at ``ManagedServer``.
    """

    def __init__(
        self,
        root: Path,
        installation: Installation,
        *,
        launches: Iterable[ServerLaunch] = (),
        limits: VllmLimits | None = None,
        policy: RestartPolicy | None = None,
        restart: bool = True,
        on_down: Callable[[ServerStatus], None] = lambda _status: None,
        inherited: Mapping[str, str] = os.environ,
        clock: Clock = time.monotonic,
    ) -> None:
        self._limits = limits or VllmLimits()
        self._installation = installation
        self._premises = Premises(root.resolve(), inherited, self._limits)
        self._upkeep = Upkeep(self._premises, installation, self._control, policy or RestartPolicy(), restart, on_down, clock)
        self._session: aiohttp.ClientSession | None = None
        self._ownership: Ownership | None = None
        self._servers: dict[str, ManagedServer] = {}
        for launch in launches:
            self.declare(launch)

    async def open(self) -> tuple[ServerStatus, ...]:
        """Become the one who manages the folder. Of the servers that an earlier service left, those that are declared, were started
        like that and are well are taken over, and told; all others are ended.

        Raises ``Conflict`` while another process manages the folder.
        """
        self._ownership = await asyncio.to_thread(Ownership.take, self._premises.root)
        self._session = control_session()
        records = await asyncio.to_thread(_left_alive, self._premises.root)
        kept = [mark for mark in await asyncio.gather(*map(self._adopt, records)) if mark is not None]
        try:
            if num_ended := await end_marked(mark_of(self._premises.root), self._limits, spare=kept):
                log.warning("ended %d processes of vLLM servers that an earlier service had left", num_ended)
        except ConsiliumError as error:
            log.error("%s", error.message)  # their memory is lost, the service is not
        return tuple(status for status in self.statuses() if status.is_adopted)

    async def close(self) -> None:
        """Stop every server, and give the folder up."""
        try:
            for outcome in await asyncio.gather(*(server.stop() for server in self._servers.values()), return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("a vLLM server could not be stopped: %s", outcome)
        finally:
            if self._session is not None:
                await self._session.close()
                self._session = None
            if self._ownership is not None:
                self._ownership.release()
                self._ownership = None

    # --- what there is ---

    def declare(self, launch: ServerLaunch) -> None:
        """Make a server known, or change how its next start will be; one that runs goes on as it is (``is_outdated``)."""
        if launch.server_id in self._servers:
            self._servers[launch.server_id].launch = launch
        else:
            self._servers[launch.server_id] = ManagedServer(launch, self._upkeep)

    def forget(self, server_id: str) -> None:
        """Take the declaration back. Raises ``Conflict`` while anything of it runs."""
        state = self._known(server_id).status.state
        if state not in {ServerState.STOPPED, ServerState.FAILED}:
            raise Conflict(f"server {server_id!r} is {state} and cannot be forgotten: stop it first")
        del self._servers[server_id]

    def status(self, server_id: str) -> ServerStatus:
        return self._known(server_id).status

    def statuses(self) -> tuple[ServerStatus, ...]:
        """Of all declared servers, by id."""
        return tuple(self._servers[server_id].status for server_id in sorted(self._servers))

    def base_url(self, server_id: str) -> str:
        """Where its calls go, with ``/v1``. Raises ``Conflict`` when it is not up. Every start has another port."""
        status = self._known(server_id).status
        if status.base_url is None or status.state not in RUNNING:
            raise Conflict(f"server {server_id!r} is {status.state} and has no address: start it first")
        return status.base_url

    async def ailment(self, server_id: str) -> str | None:
        """Why it cannot be called; None when it is healthy. Asks the server, unlike ``status``, which learns of a death when all that
        is left of the server has been ended."""
        try:
            port = self._known(server_id).port
            return "it does not run" if port is None else await self._control(server_id, port).ailment()
        except Conflict as error:
            return error.message

    async def logs(self, server_id: str, num_lines: int = 200) -> list[str]:
        """The last lines that it wrote, oldest first, those of earlier starts included."""
        self._known(server_id)
        return await asyncio.to_thread(tail, log_file(self._premises.root, server_id), num_lines)

    # --- what is done to them ---

    async def start(self, server_id: str) -> None:
        await self._known(server_id).start()

    async def stop(self, server_id: str) -> None:
        await self._known(server_id).stop()

    async def sleep(self, server_id: str) -> None:
        await self._known(server_id).sleep()

    async def wake(self, server_id: str) -> None:
        await self._known(server_id).wake()

    async def load_adapter(self, server_id: str, name: str, path: Path) -> None:
        await self._known(server_id).load_adapter(name, str(path))

    async def unload_adapter(self, server_id: str, name: str) -> None:
        await self._known(server_id).unload_adapter(name)

    def _known(self, server_id: str) -> ManagedServer:
        if server_id not in self._servers:
            raise NotFound(f"there is no server {server_id!r}; {did_you_mean(server_id, sorted(self._servers))}", param="server")
        return self._servers[server_id]

    def _control(self, server_id: str, port: int) -> ServerControl:
        if self._session is None:
            raise Conflict("the supervisor of vLLM servers is not open")
        return ServerControl(self._session, server_id, port, self._limits)

    # --- what an earlier service left ---

    async def _adopt(self, record: ServerRecord) -> str | None:
        """The mark of what was taken over; None when it was ended."""
        process = ServerProcess.adopted(record, self._premises)
        try:
            why_not = await self._taken_over(process)
            if why_not is None:
                return mark_of(self._premises.root, record.server_id, record.token)
            log.info("vLLM server %r was left running and is ended: %s", record.server_id, why_not)
            await process.stop()
        except ConsiliumError as error:
            log.error("vLLM server %r was left running and cannot be ended: %s", record.server_id, error.message)
        return None

    async def _taken_over(self, process: ServerProcess) -> str | None:
        """What speaks against it; None when it was done."""
        server = self._servers.get(process.record.server_id)
        if server is None:
            return "it is not declared"
        try:
            launch = server.launch
            if process.record.fingerprint != fingerprint(launch, self._installation.program_for(launch)):
                return "it was started in another way than it is declared now"
            control = self._control(launch.server_id, process.record.port)
            async with asyncio.timeout(self._limits.adopt_timeout_s):
                if (why_not := await control.ailment() or await control.mistake(launch.served_name)) is not None:
                    return why_not
                asleep = await control.is_sleeping()
                adapters = {model.name: model.root for model in await control.models() if model.parent and model.root}
        except TimeoutError:
            return f"it did not answer within {self._limits.adopt_timeout_s:g} s"
        except ConsiliumError as error:
            return error.message
        server.take_over(process, adapters, asleep=asleep)
        return None


def _left_alive(root: Path) -> list[ServerRecord]:
    return [record for record in read_records(root) if record.is_alive]
