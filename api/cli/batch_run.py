"""A batch that is run by the command line itself, on the same database and with the same engine as the service's."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from api.cli.batch_progress import batch_progress
from api.cli.connection import until_ready
from api.cli.failures import CommandFailed, bad_input
from api.cli.output import note
from domain.batch import Batch, BatchOptions, BatchRunner, BatchState, FilePurpose

if TYPE_CHECKING:
    from api.services import Services
    from orchestrator.batch.preview import Preview

LEASE_S = 10.0
"""How long after a kill the same command has to wait before it may go on; kept alive every second while it runs."""
_WINDOW_S = 30 * 86_400.0
"""A batch of the command line has no window; what nobody goes on with for a month is over."""
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """What was typed."""

    input: Path
    output: Path
    endpoint: str
    options: BatchOptions

    def key(self) -> str:
        """Equal for the same requests with the same options: the same command, typed again."""
        digest = hashlib.sha256(json.dumps([self.endpoint, asdict(self.options)], sort_keys=True).encode())
        with self.input.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
        return digest.hexdigest()

    @property
    def errors_path(self) -> Path:
        return self.output.with_name(f"{self.output.name}.errors.jsonl")


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


async def run_job(job: Job, data_dir: Path | None, *, quiet: bool = False) -> JobOutcome:
    """Begin the batch of *job*, or go on with it, until it is over. Raises ``CommandFailed``."""
    if not job.output.parent.is_dir():
        raise bad_input(f"the folder {job.output.parent} is not there")
    async with _services(data_dir) as services:
        batch = await _taken_up(services, job)
        owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        claimed = await _claimed(services, batch, owner)
        began, loads_before = time.perf_counter(), services.fleet.num_loads
        try:
            with batch_progress(quiet=quiet) as show:
                over = await services.batches.engine(owner, lease_s=LEASE_S).run(claimed, show)
        except asyncio.CancelledError:
            counts = (await services.batch_store.get(batch.id)).counts
            note(f"interrupted after {counts.completed + counts.failed} of {counts.total} lines; the same command goes on")
            raise
        finally:
            await services.batch_store.release(batch.id, owner)
        seconds, num_loads = time.perf_counter() - began, services.fleet.num_loads - loads_before
        output = await _copied(services, over.output_file_id, job.output)
        errors = await _copied(services, over.error_file_id, job.errors_path)
        for file_id in (over.input_file_id, over.output_file_id, over.error_file_id):
            if file_id is not None:
                await services.file_store.delete(file_id)
        return JobOutcome(over, num_loads, seconds, output, errors)


async def preview_job(job: Job, data_dir: Path | None) -> Preview:
    """What *job* would do."""
    from orchestrator.batch.preview import preview

    async with _services(data_dir) as services:
        with job.input.open("rb") as file:
            return await preview(services.batches.parts(traced=False), file, job.endpoint, job.options)


@asynccontextmanager
async def _services(data_dir: Path | None) -> AsyncIterator[Services]:
    """The service's parts in this process, ready; without its batches, which are not this command's."""
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
        await until_ready(services.readiness, ())
        yield services


async def _taken_up(services: Services, job: Job) -> Batch:
    """The batch that an earlier run of the same command has left, or a new one."""
    key = await asyncio.to_thread(job.key)
    for left in await services.batch_store.unfinished(BatchRunner.COMMAND):
        if left.metadata.get("key") == key:
            note(f"going on with {left.id}: {left.counts.completed + left.counts.failed} of {left.counts.total} lines are over")
            return left
    if (strategy := job.options.strategy) is not None and strategy not in services.directory.snapshot().strategies and strategy != "auto":
        from domain.nearest import did_you_mean

        known = sorted(services.directory.snapshot().strategies)
        raise bad_input(f"there is no strategy {strategy!r}; {did_you_mean(strategy, known, always_list=True)}")
    with job.input.open("rb") as file:
        stored = await services.file_store.create(job.input.name, FilePurpose.BATCH, _pieces(file))
    now = time.time()
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
    while piece := await asyncio.to_thread(file.read, _PIECE):
        yield piece


async def _claimed(services: Services, batch: Batch, owner: str) -> Batch:
    """It is this process's. What a killed run has left is waited for."""
    give_up, told = time.monotonic() + 2 * LEASE_S, False
    while True:
        claimed = await services.batch_store.claim(owner, lease_s=LEASE_S, runner=BatchRunner.COMMAND, batch_id=batch.id)
        if claimed is not None:
            return claimed
        if time.monotonic() > give_up:
            raise CommandFailed(f"another process works on {batch.id}: wait for it, or stop it")
        if not told:
            note(f"waiting until nobody works on {batch.id} any more, at most {2 * LEASE_S:.0f} s")
            told = True
        await asyncio.sleep(0.5)


async def _copied(services: Services, file_id: str | None, path: Path) -> Path | None:
    """The file's content at *path*, all of it or nothing; None when there is no file, and then none is left at *path*."""
    if file_id is None:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        return None

    def copy(source: BinaryIO) -> None:
        half = path.with_name(f".{path.name}.half")
        with half.open("wb") as target:
            shutil.copyfileobj(source, target, _PIECE)
            target.flush()
            os.fsync(target.fileno())
        half.replace(path)

    with await services.file_store.open(file_id) as source:
        await asyncio.to_thread(copy, source)
    return path
