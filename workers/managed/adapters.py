"""The adapters of all servers: each is loaded once, however many calls wait for it, and anew when it comes from another folder."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from domain.deadline import Deadline
from domain.errors import ConsiliumError, ExpertError, ExpertTimeout, ExpertUnavailable, ExpertUnreachable, NotFound
from workers.managed.placement import Seat
from workers.vllm.status import ServerState
from workers.vllm.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class _Loading:
    folder: str
    task: asyncio.Task[None]


class AdapterLoads:
    """Lives on one event loop."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._loading: dict[tuple[str, str], _Loading] = {}

    async def loaded(self, server_id: str, expert_id: str, folder: str, deadline: Deadline) -> None:
        """Return when calls that name *expert_id* get the adapter in *folder*; at once when they do already. One of that name from
        another folder goes first. The server must be held. Raises ``ExpertError``.

        The load goes on when its last caller has gone: cancelled halfway, the server might have an adapter that nobody knows of.
        """
        key, task = (server_id, expert_id), None
        try:
            async with asyncio.timeout(deadline.remaining_s):
                while (other := self._loading.get(key)) is not None and other.folder != folder:
                    await asyncio.wait({other.task})  # what becomes of it is its own callers' concern
                if (task := self._task(key, folder)) is not None:
                    await asyncio.shield(task)
        except TimeoutError as error:
            if task is not None and task.done():
                raise
            msg = f"the request's deadline came while the adapter of expert {expert_id!r} was loaded"
            raise ExpertTimeout(msg, expert_at_fault=False) from error

    async def drop_changed(self, before: Mapping[str, Seat], after: Mapping[str, Seat]) -> None:
        """Unload the adapters of experts that are gone or come from another folder now. One that is not unloaded, since its server
        sleeps or refuses, takes room; before a call is made to its name ``loaded`` sees to it."""
        for expert_id, seat in before.items():
            if seat.adapter is None or after.get(expert_id) == seat:
                continue
            try:
                if expert_id in self._supervisor.status(seat.server_id).adapters:
                    await self._supervisor.unload_adapter(seat.server_id, expert_id)
            except ConsiliumError:
                continue

    async def close(self) -> None:
        """Give up what is being loaded."""
        tasks = tuple(loading.task for loading in self._loading.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _task(self, key: tuple[str, str], folder: str) -> asyncio.Task[None] | None:
        """What loads it; None when it is there."""
        server_id, expert_id = key
        if (loading := self._loading.get(key)) is not None:
            return loading.task
        if self._supervisor.status(server_id).adapter_folders.get(expert_id) == folder:
            return None
        task = asyncio.create_task(self._load(server_id, expert_id, folder), name=f"adapter {expert_id}")
        self._loading[key] = _Loading(folder, task)
        task.add_done_callback(lambda ended: self._ended(key, ended))
        return task

    async def _load(self, server_id: str, expert_id: str, folder: str) -> None:
        try:
            if self._supervisor.status(server_id).adapter_folders.get(expert_id, folder) != folder:
                await self._unload_old(server_id, expert_id)
            await self._supervisor.load_adapter(server_id, expert_id, Path(folder))
        except ExpertError:
            raise
        except ConsiliumError as error:
            if not isinstance(error, NotFound) and self._supervisor.status(server_id).state is not ServerState.READY:
                raise ExpertUnreachable(error.message) from error  # it went down meanwhile: with a new start it can be
            raise ExpertUnavailable(error.message) from error

    async def _unload_old(self, server_id: str, expert_id: str) -> None:
        try:
            await self._supervisor.unload_adapter(server_id, expert_id)
        except ExpertUnreachable:
            raise  # it went down: started again it has no adapters
        except ExpertError as error:
            msg = f"the adapter of expert {expert_id!r} has changed, and its server does not let the old one go: {error.message}"
            raise ExpertUnavailable(f"{msg}; stop the server {server_id!r}, and the next call starts it anew") from error

    def _ended(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        del self._loading[key]
        if not task.cancelled():
            task.exception()  # retrieved, so that nobody is warned about it when all who waited have gone
