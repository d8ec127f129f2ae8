"""``consilium serve --workers N``: several processes of the service on one port, and the one that looks after them.

Each process listens at a socket of its own (SO_REUSEPORT), so that the kernel spreads connections over them evenly and takes one that
died out at once. The parent serves nothing: it starts them, starts one anew that ended by itself, and passes a stop on. What they share
is the data dir and the database, as replicas do.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import TYPE_CHECKING

from api.cli.failures import CommandFailed, bad_input
from api.cli.serve import announce_ready, listen, log_to_stderr, serve_app, tell, url_of
from api.event_loop import run_async

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from api.settings import Settings

log = logging.getLogger(__name__)

CLOSE_MARGIN_S = 60.0
"""How long a worker may take to close its parts, after the running requests had their time. Then it is killed."""
RESTART_WAIT_S = (1.0, 30.0)
"""Wait before a worker that ended by itself is started again: doubles from the one to the other while it keeps ending."""
SETTLED_S = 60.0
"""A worker that has run so long has not failed to start: its next wait is the shortest again."""
_LOOK_EVERY_S = 0.1
_READY = "ready"


@dataclass
class _Worker:
    """One of the processes, as its parent sees it."""

    number: int
    process: SpawnProcess
    lifeline: Connection
    """Closed by the kernel when the parent is gone, which ends the worker. The worker says here that it is ready."""
    began: float
    is_ready: bool = False


@dataclass
class _Fallen:
    """One that ended by itself, and when it is started again."""

    number: int
    due: float


@dataclass
class _Parent:
    settings: Settings
    url: str
    stopping: socket.socket
    """Readable once a signal came."""
    workers: dict[int, _Worker] = field(default_factory=dict)
    fallen: list[_Fallen] = field(default_factory=list)
    waits_s: dict[int, float] = field(default_factory=dict)
    has_been_ready: bool = False

    def run(self) -> None:
        """Until a signal comes. Raises ``CommandFailed`` when the service never becomes ready."""
        for number in range(self.settings.workers):
            self._start(number)
        try:
            while not self._look():
                pass
        finally:
            self._stop()

    def _start(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        mine, its = context.Pipe()
        # The very first one listens at once, so that /health and /ready answer while everything loads. Any other would only turn
        # requests away that those who are ready can answer.
        arguments = (self.settings, number, self.url, its, not self.has_been_ready and number == 0)
        process = context.Process(target=work, args=arguments, name=f"consilium-worker-{number}")
        process.start()
        its.close()
        self.workers[number] = _Worker(number, process, mine, time.monotonic())

    def _look(self) -> bool:
        """Wait until something happens and see to it; whether to stop."""
        due = min((fallen.due for fallen in self.fallen), default=None)
        timeout_s = None if due is None else max(0.0, due - time.monotonic())
        telling = [worker.lifeline for worker in self.workers.values() if not worker.is_ready]
        happened = wait([self.stopping, *telling, *(worker.process.sentinel for worker in self.workers.values())], timeout_s)
        if self.stopping in happened:
            return True
        for worker in list(self.workers.values()):
            if worker.lifeline in happened:
                self._hear(worker)
            if worker.process.sentinel in happened:
                self._bury(worker)
        now = time.monotonic()
        for fallen in [fallen for fallen in self.fallen if fallen.due <= now]:
            self.fallen.remove(fallen)
            self._start(fallen.number)
        return False

    def _hear(self, worker: _Worker) -> None:
        try:
            worker.is_ready = worker.lifeline.recv() == _READY
        except EOFError:
            worker.is_ready = True  # it ended: its sentinel tells the same; there is nothing more to hear
        else:
            self.has_been_ready = True
            log.info("worker %d is ready", worker.number)

    def _bury(self, worker: _Worker) -> None:
        worker.process.join()
        worker.lifeline.close()
        del self.workers[worker.number]
        if not self.has_been_ready:
            raise CommandFailed(f"worker {worker.number} ended with status {worker.process.exitcode} before the service was ready")
        shortest, longest = RESTART_WAIT_S
        lived_s = time.monotonic() - worker.began
        wait_s = shortest if lived_s >= SETTLED_S else self.waits_s.get(worker.number, shortest)
        self.waits_s[worker.number] = min(2 * wait_s, longest)
        log.error("worker %d ended with status %s; it is started again in %g s", worker.number, worker.process.exitcode, wait_s)
        self.fallen.append(_Fallen(worker.number, time.monotonic() + wait_s))

    def _stop(self) -> None:
        for worker in self.workers.values():
            worker.process.terminate()
        end = time.monotonic() + self.settings.drain_timeout_s + CLOSE_MARGIN_S
        for worker in self.workers.values():
            worker.process.join(max(0.0, end - time.monotonic()))
            if worker.process.exitcode is None:
                log.error("worker %d does not stop and is killed", worker.number)
                worker.process.kill()
                worker.process.join()


def serve_workers(settings: Settings) -> None:
    """Serve with ``settings.workers`` processes until SIGINT or SIGTERM. Raises ``CommandFailed``, ``SettingsError``."""
    if sys.platform != "linux":
        raise bad_input("--workers needs Linux, where the kernel spreads connections over processes; start one process")
    from api.auth import load_admin_key
    from api.bootstrap import make_data_dir

    held = _held_port(settings)
    make_data_dir(settings)
    load_admin_key(settings)  # made once, here, if there is none
    url = url_of(held, settings.scheme)
    host, port = held.getsockname()[:2]
    tell(f"starting {settings.workers} processes on {url}")
    told, stopping = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _noted)
    with held, told, stopping:
        # Every worker listens where the parent has found the port, which may have been 0.
        _Parent(settings.model_copy(update={"host": host, "port": port}), url, stopping).run()
    tell("stopped")


def _held_port(settings: Settings) -> socket.socket:
    """A socket that holds the port for the workers and takes no connections. Raises ``CommandFailed`` when others listen there."""
    with listen(settings.host, settings.port) as alone:  # fails also beside one that shares its port: another service
        family, address = alone.family, alone.getsockname()
    held = socket.socket(family, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(address)
    return held


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The wake-up socket tells the loop; without a handler the signal would end the process."""


def work(settings: Settings, number: int, url: str, lifeline: Connection, at_once: bool) -> None:
    """One worker process, in its entirety."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to everybody; the parent says when to stop
    from api.app import create_app
    from api.settings import SettingsError

    log_to_stderr(settings, worker=number)
    own = settings.model_copy(update={"run_batches": settings.run_batches and number == 0})
    app = create_app(own, worker=number, has_stored_keys=True)  # their parent has looked

    async def ready() -> None:
        while app.state.services.readiness.missing:  # noqa: ASYNC110  # as `announce_ready` looks
            await asyncio.sleep(_LOOK_EVERY_S)

    async def opened() -> socket.socket:
        if not at_once:
            await ready()
        return listen(own.host, own.port, shared=True)

    async def announce() -> None:
        watching = asyncio.create_task(_end_with_parent(lifeline))
        try:
            await (announce_ready(app, own, url) if at_once else ready())
            lifeline.send(_READY)
            await watching
        finally:
            watching.cancel()

    try:
        run_async(serve_app(app, own, opened, announce=announce, signals=(signal.SIGTERM,)))
    except (CommandFailed, SettingsError) as error:
        tell(f"error: {error}")
        sys.exit(1)


async def _end_with_parent(lifeline: Connection) -> None:
    """The parent never sends: what can be read is the end of it."""
    gone, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(lifeline.fileno(), gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(lifeline.fileno())
    log.error("the process that looks after the workers is gone: this one stops")
    signal.raise_signal(signal.SIGTERM)
