"""A batch that is run by the command line itself, on the same database and with the same engine as the service's."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from api.cli.batch_delivery import deliver
from api.cli.batch_job import PIECE, Job, Target, refused
from api.cli.batch_progress import batch_progress
from api.cli.connection import EVERYTHING, REGISTRY, until_ready
from api.cli.failures import CommandFailed, bad_input
from api.cli.output import note
from domain.batch import Batch, BatchRunner, BatchState, FilePurpose
from domain.errors import ConsiliumError

if TYPE_CHECKING:
    from api.services import Services
    from orchestrator.batch.preview import Preview

log = logging.getLogger(__name__)

LEASE_S = 10.0
"""How long after a kill the same command has to wait before it may go on; kept alive every second while it runs."""
_LOOK_EVERY_S = 0.5
_WINDOW_S = 30 * 86_400.0
"""A batch of the command line has no window; what nobody goes on with for a month is over."""


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How it ended. Loads and seconds are of this run, the rest of the whole batch."""

    batch: Batch
    num_loads: int
    seconds: float
    output: Path | None
    errors_path: Path | None

    def as_json(self) -> dict[str, Any]:
        batch = self.batch
        return {
            "id": batch.id,
            "state": batch.state.value,
            "lines": asdict(batch.counts),
            "num_calls": batch.num_calls,
            "num_loads": self.num_loads,
            "prompt_tokens": batch.usage.prompt_tokens,
            "completion_tokens": batch.usage.completion_tokens,
            "seconds": round(self.seconds, 3),
            "output": str(self.output) if self.output else None,
            "errors": str(self.errors_path) if self.errors_path else None,
        }


async def run_job(job: Job, target: Target, data_dir: Path | None) -> JobOutcome:
    """Begin the batch of *job*, or go on with it, until it is over and its answers are at *target*. Raises ``CommandFailed``."""
    target.check(job.input)
    async with _services(data_dir) as services:
        batch = await _taken_up(services, await _known(services, job))
        try:
            over, num_loads, seconds = await _until_over(services, batch)
        except asyncio.CancelledError:
            with suppress(ConsiliumError):
                counts = (await services.batch_store.get(batch.id)).counts
                note(f"interrupted after {counts.completed + counts.failed} of {counts.total} lines; the same command goes on")
            raise
        if over.state is BatchState.FAILED:
            with suppress(ConsiliumError):
                await services.file_store.delete(over.input_file_id)
            raise refused(over.errors, has_run=over.num_calls > 0)
        output, errors = await deliver(services, over, target)
        return JobOutcome(over, num_loads, seconds, output, errors)


async def preview_job(job: Job, data_dir: Path | None) -> Preview:
    """What *job* would do."""
    from orchestrator.batch.preview import preview

    async with _services(data_dir) as services:
        job = await _known(services, job)
        await _require_lines(services, job)
        await _everything(services)
        with job.input.open("rb") as file:
            return await preview(services.batches.parts(traced=False), file, job.endpoint, job.options)


@asynccontextmanager
async def _services(data_dir: Path | None) -> AsyncIterator[Services]:
    """The service's parts in this process, with the registry ready; without its batches, which are not this command's."""
    from pydantic import SecretStr

    from api.bootstrap import bootstrap
    from api.metrics import Metrics
    from api.settings import SettingsError, load_settings

    try:
        settings = load_settings(data_dir=data_dir, run_batches=False)
    except SettingsError as error:
        raise bad_input(str(error)) from error
    note(f"working in this process on {settings.data_dir}, which has to load the models first")
    # The data dir's admin key is made, and told, when a service starts.
    settings = settings.model_copy(update={"admin_key": SecretStr(secrets.token_urlsafe(32))})
    async with bootstrap(settings, Metrics()) as services:
        await until_ready(services.readiness, REGISTRY)
        yield services


async def _everything(services: Services) -> None:
    """Wait until experts can be asked. Raises ``CommandFailed`` when their servers are another process's."""
    await until_ready(services.readiness, EVERYTHING)
    await services.fleet.update(services.directory.snapshot().experts.values())  # a plan has to know which servers there are
    if (trouble := services.fleet.view().trouble) is not None:
        raise CommandFailed(f"{trouble}. If it is a service on the same data dir, send it the batch (POST /v1/batches), or stop it first")


async def _known(services: Services, job: Job) -> Job:
    """*job* with the strategy's id. Raises ``InvalidRequest`` when there is none of that name."""
    from api.schemas.batches import known_strategy

    if job.options.strategy is None:
        return job
    strategies = {strategy.id: strategy.enabled for strategy in services.directory.snapshot().strategies.values()}
    return replace(job, options=replace(job.options, strategy=known_strategy(job.options.strategy, strategies)))


async def _require_lines(services: Services, job: Job) -> None:
    """Raise ``CommandFailed`` with every wrong line."""
    from orchestrator.batch.preview import wrong_lines

    with job.input.open("rb") as file:
        if wrong := await wrong_lines(services.batches.parts(traced=False), file, job.endpoint):
            raise refused(wrong)


async def _taken_up(services: Services, job: Job) -> Batch:
    """The batch that an earlier run of the same command has left, or a new one."""
    key = await asyncio.to_thread(job.key)
    for left in await services.batch_store.undelivered(BatchRunner.COMMAND):
        if left.metadata.get("key") == key:
            note(f"going on with {left.id}: {left.counts.completed + left.counts.failed} of {left.counts.total} lines are over")
            return left
    await _require_lines(services, job)
    now = time.time()
    with job.input.open("rb") as file:
        stored = await services.file_store.create(job.input.name, FilePurpose.BATCH, _pieces(file), expires_at=now + _WINDOW_S)
    batch = Batch(
        id=f"batch_{uuid.uuid4().hex}",
        endpoint=job.endpoint,
        input_file_id=stored.id,
        state=BatchState.VALIDATING,
        created_at=now,
        expires_at=now + _WINDOW_S,
        window="30d",
        options=job.options,
        metadata={"key": key},
        runner=BatchRunner.COMMAND,
        entered={BatchState.VALIDATING: now},
    )
    return await services.batch_store.create(batch)


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece


async def _until_over(services: Services, batch: Batch) -> tuple[Batch, int, float]:
    """The batch when it is over, with the loads and the seconds of this run."""
    if batch.state.is_final:
        return batch, 0, 0.0
    await _everything(services)
    owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    claimed = await _claimed(services, batch, owner)
    began, loads_before = time.perf_counter(), services.fleet.num_loads
    try:
        with batch_progress(quiet=False) as show:
            over = await services.batches.engine(owner, lease_s=LEASE_S).run(claimed, show)
    except ConsiliumError as error:
        raise CommandFailed(f"{error.message}; what is answered is kept, and the same command goes on") from error
    except Exception as error:  # a bug: told in one line, and what it was in the log
        log.error("batch %s broke off", batch.id, exc_info=error)
        raise CommandFailed(f"internal error ({type(error).__name__}: {error}); what is answered is kept") from error
    finally:
        with suppress(ConsiliumError):
            await services.batch_store.release(batch.id, owner)
    return over, services.fleet.num_loads - loads_before, time.perf_counter() - began


async def _claimed(services: Services, batch: Batch, owner: str) -> Batch:
    """It is this process's, or over. What a killed run has left is waited for."""
    give_up, told = time.monotonic() + 2 * LEASE_S, False
    while True:
        claimed = await services.batch_store.claim(owner, lease_s=LEASE_S, runner=BatchRunner.COMMAND, batch_id=batch.id)
        if claimed is not None:
            return claimed
        if (now := await services.batch_store.get(batch.id)).state.is_final:
            return now
        if time.monotonic() > give_up:
            raise CommandFailed(f"another process works on {batch.id}: wait for it, or stop it")
        if not told:
            note(f"waiting until nobody works on {batch.id} any more, at most {2 * LEASE_S:.0f} s")
            told = True
        await asyncio.sleep(_LOOK_EVERY_S)
