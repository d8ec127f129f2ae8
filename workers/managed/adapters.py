"""The adapters of all servers: each is loaded once, however many calls wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from domain.deadline import Deadline
from domain.errors import ConsiliumError, ExpertError, ExpertTimeout, ExpertUnavailable, ExpertUnreachable, NotFound
from workers.managed.placement import Seat
from workers.vllm.status import ServerState
from workers.vllm.supervisor import Supervisor


class AdapterLoads:
    """Lives on one event loop."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._loading: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def loaded(self, server_id: str, expert_id: str, folder: str, deadline: Deadline) -> None:
        """Return when calls may name *expert_id*; at once when they may already. The server must be held. Raises ``ExpertError``.

        The load goes on when its last caller has gone: cancelled halfway, the server might have an adapter that nobody knows of.
        """
        if expert_id in self._supervisor.status(server_id).adapters:
            return
        key = (server_id, expert_id)
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._load(server_id, expert_id, folder), name=f"adapter {expert_id}")
            task.add_done_callback(lambda ended: self._ended(key, ended))
        try:
            async with asyncio.timeout(deadline.remaining_s):
                await asyncio.shield(task)
        except TimeoutError as error:
            if task.done():
                raise
            msg = f"the request's deadline came while the adapter of expert {expert_id!r} was loaded"
            raise ExpertTimeout(msg, expert_at_fault=False) from error

    async def drop_changed(self, before: Mapping[str, Seat], after: Mapping[str, Seat]) -> None:
        """Unload the adapters of experts that are gone or come from another folder now. One that is not unloaded only takes room."""
        for expert_id, seat in before.items():
            if seat.adapter is None or after.get(expert_id) == seat:
                continue
            try:
                if expert_id in self._supervisor.status(seat.server_id).adapters:
                    await self._supervisor.unload_adapter(seat.server_id, expert_id)
            except ConsiliumError:
                continue  # it does not run, or goes down: its adapters go with it

    async def close(self) -> None:
        """Give up what is being loaded."""
        tasks = tuple(self._loading.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _load(self, server_id: str, expert_id: str, folder: str) -> None:
        try:
            await self._supervisor.load_adapter(server_id, expert_id, Path(folder))
        except ExpertError:
            raise
        except ConsiliumError as error:
            if not isinstance(error, NotFound) and self._supervisor.status(server_id).state is not ServerState.READY:
                raise ExpertUnreachable(error.message) from error  # it went down meanwhile: with a new start it can be
            raise ExpertUnavailable(error.message) from error

    def _ended(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        del self._loading[key]
        if not task.cancelled():
            task.exception()  # retrieved, so that nobody is warned about it when all who waited have gone
