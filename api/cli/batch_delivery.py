"""A batch's files, from the data dir to where they were asked for. Until they are there the data dir keeps them."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from api.cli.batch_job import PIECE, Target
from api.cli.failures import CommandFailed
from domain.batch import Batch
from domain.errors import NotFound

if TYPE_CHECKING:
    from api.services import Services


async def deliver(services: Services, batch: Batch, target: Target) -> tuple[Path | None, Path | None]:
    """The paths of the answers and of the errors, None where there are none; what an earlier batch has left there is gone.

    Raises ``CommandFailed`` when they cannot be written; the same command tries it again.
    """
    written = []
    for file_id, path in ((batch.output_file_id, target.output), (batch.error_file_id, target.errors)):
        try:
            written.append(await _copied(services, file_id, path))
        except OSError as error:
            message = f"the batch is done, but {path} cannot be written: {error.strerror or error}. Its answers are kept: "
            raise CommandFailed(f"{message}mend that, and the same command writes them without asking anything again") from error
    for kept in (batch.error_file_id, batch.output_file_id, batch.input_file_id):
        if kept is not None:
            with suppress(NotFound):  # a kill came between
                await services.file_store.delete(kept)
    return written[0], written[1]


async def _copied(services: Services, file_id: str | None, path: Path) -> Path | None:
    if file_id is None:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        return None
    try:
        source = await services.file_store.open(file_id)
    except NotFound:  # a run that was killed while it cleaned up had delivered it
        return path if await asyncio.to_thread(path.exists) else None
    with source:
        await asyncio.to_thread(_copy, source, path)
    return path


def _copy(source: BinaryIO, path: Path) -> None:
    """All of it or nothing."""
    half = path.with_name(f".{path.name}.half")
    try:
        with half.open("wb") as target:
            shutil.copyfileobj(source, target, PIECE)
            target.flush()
            os.fsync(target.fileno())
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
