"""Measurements that run in the background of this process: started, looked at, cancelled, and ended with the service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from domain.errors import Conflict, ConsiliumError, NotFound, Overloaded
from evaluation.profile_run import ProfileProgress

log = logging.getLogger(__name__)

MAX_RUNNING = 2
"""Measurements at once: each already asks several experts in parallel, and more would only share the same experts."""
MAX_REMEMBERED = 50
"""Ended measurements whose progress is kept to look at."""
CANCEL_TIMEOUT_S = 15.0
"""Longest wait for a cancelled measurement to write what it has; above the run's own limit for that (10 s)."""


@dataclass(slots=True)
class RunTask:
    """One measurement of this process."""

    id: str
    progress: dict[str, ProfileProgress] = field(default_factory=dict)
    """By expert id, in the order in which they were told."""
    error: str | None = None
    """Why it ended before it was done."""
    cancelled: bool = False
    task: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        return self.task is not None and not self.task.done()

    @property
    def status(self) -> str:
        """``running``, ``finished``, ``cancelled`` or ``failed``."""
        if self.active:
            return "running"
        if self.cancelled:
            return "cancelled"
        return "failed" if self.error is not None else "finished"

    def note(self, told: ProfileProgress) -> None:
        self.progress[told.expert_id] = told

    @property
    def num_done(self) -> int:
        return sum(told.num_done for told in self.progress.values())

    @property
    def num_correct(self) -> int:
        return sum(told.num_correct for told in self.progress.values())

    @property
    def stopped(self) -> dict[str, str]:
        """Experts that were given up, with the reason."""
        return {told.expert_id: told.stopped for told in self.progress.values() if told.stopped}


class RunTasks:
    """The measurements by id; at most ``MAX_RUNNING`` run at once."""

    def __init__(self) -> None:
        self._runs: dict[str, RunTask] = {}

    def find(self, run_id: str) -> RunTask | None:
        return self._runs.get(run_id)

    def get(self, run_id: str) -> RunTask:
        """Raises ``NotFound``."""
        run = self._runs.get(run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id!r} in this process")
        return run

    def active(self) -> frozenset[str]:
        """The ids of those that run now."""
        return frozenset(run.id for run in self._runs.values() if run.active)

    def all(self, prefix: str) -> Iterable[RunTask]:
        """Those whose id begins with *prefix*."""
        return [run for run in self._runs.values() if run.id.startswith(prefix)]

    def require_room(self) -> None:
        """Raise ``Overloaded`` when as many run as may. To be asked before anything is stored for a new one."""
        active = self.active()
        if len(active) >= MAX_RUNNING:
            raise Overloaded(f"{' and '.join(sorted(active))} are running; wait for one, or cancel it", retry_after_s=10.0)

    def start(self, run_id: str, work: Callable[[RunTask], Awaitable[None]]) -> RunTask:
        """Begin *work*. Raises ``Conflict`` when the run is active already, ``Overloaded`` when there is no room."""
        known = self._runs.get(run_id)
        if known is not None and known.active:
            raise Conflict(f"run {run_id!r} is running already")
        self.require_room()
        run = RunTask(run_id)
        self._runs.pop(run_id, None)
        self._runs[run_id] = run
        run.task = asyncio.create_task(_guarded(run, work), name=f"measure {run_id}")
        for old in [other.id for other in self._runs.values() if not other.active][:-MAX_REMEMBERED]:
            del self._runs[old]
        return run

    async def cancel(self, run_id: str) -> None:
        """End a run and wait until it has written what it had. One that is not active is left as it is."""
        run = self._runs.get(run_id)
        if run is None or run.task is None or run.task.done():
            return
        run.cancelled = True
        run.task.cancel()
        await asyncio.wait({run.task}, timeout=CANCEL_TIMEOUT_S)

    def forget(self, run_id: str) -> None:
        """Drop what is remembered of an ended run."""
        self._runs.pop(run_id, None)

    async def close(self) -> None:
        """End every run; what they have recorded stays, and they can be resumed."""
        await asyncio.gather(*(self.cancel(run_id) for run_id in list(self._runs)))


async def _guarded(run: RunTask, work: Callable[[RunTask], Awaitable[None]]) -> None:
    """*work*, its failure kept where people look for it: nobody awaits this task."""
    try:
        await work(run)
    except ConsiliumError as error:
        run.error = error.message
        log.warning("run %s ended early: %s", run.id, error)
    except Exception as error:
        run.error = f"internal error ({type(error).__name__}); the log has the details"
        log.exception("run %s broke", run.id)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Runs live from the start of the service to its end, inside the life of the services that they use."""
    app.state.run_tasks = RunTasks()
    try:
        yield
    finally:
        await app.state.run_tasks.close()


def get_run_tasks(request: Request) -> RunTasks:
    tasks: RunTasks = request.app.state.run_tasks
    return tasks


RunTasksDep = Annotated[RunTasks, Depends(get_run_tasks)]
