"""Contents of files in one folder: written under a temporary name, synced, then renamed. Every touch of the disk is in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, TypeVar

from domain.errors import StorageError

T = TypeVar("T")

PIECE_BYTES = 1 << 20
"""Gathered before the disk is asked: a thread for each piece of the network would cost more than the writing."""
PREFIX = "file-"
"""Of every id: what is not named so is not ours."""
_PART = ".part"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class ContentFolder:
    """One file an id. Raises ``StorageError`` when the disk does not do as it is asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def new(self, file_id: str) -> NewContent:
        """To be written, then kept or discarded. The folder is made when it is not there."""
        return NewContent(self._folder, file_id, await self._run(lambda: self._create(file_id)))

    async def open(self, file_id: str) -> BinaryIO:
        """Open for reading in a thread; the caller closes it."""
        return await self._run(lambda: self.path(file_id).open("rb"))

    async def delete(self, file_ids: Iterable[str]) -> None:
        """What is not there stays so."""
        paths = [self.path(file_id) for file_id in file_ids]
        await self._run(lambda: _unlink(paths))

    async def older_than(self, timestamp: float) -> list[str]:
        """Ids of contents that were written before *timestamp* (seconds since the epoch)."""
        return await self._run(lambda: [path.name for path in self._written_before(timestamp) if path.suffix != _PART])

    async def delete_halves(self, timestamp: float) -> int:
        """Delete what processes left half written that were last at it before *timestamp*; how many."""
        paths = await self._run(lambda: [path for path in self._written_before(timestamp) if path.suffix == _PART])
        await self._run(lambda: _unlink(paths))
        return len(paths)

    def path(self, file_id: str) -> Path:
        return self._folder / file_id

    def _create(self, file_id: str) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Nobody but the service's user reads what others have sent.
        return os.fdopen(os.open(self._folder / (file_id + _PART), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)

    def _written_before(self, timestamp: float) -> list[Path]:
        found = []
        with contextlib.suppress(FileNotFoundError):  # nobody has stored anything yet
            for path in self._folder.iterdir():
                with contextlib.suppress(FileNotFoundError):  # another process sweeps too
                    if path.name.startswith(PREFIX) and path.stat().st_mtime < timestamp:
                        found.append(path)
        return found

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise disk_error(error) from error


class NewContent:
    """A file that is being written. ``keep`` makes it one, ``discard`` leaves nothing of it."""

    def __init__(self, folder: Path, file_id: str, file: BinaryIO) -> None:
        self._folder, self._part, self._path, self._file = folder, folder / (file_id + _PART), folder / file_id, file
        self._waiting = bytearray()
        self.num_bytes = 0
        self.is_kept = False

    async def write(self, piece: bytes) -> None:
        """Append *piece*."""
        self.num_bytes += len(piece)
        self._waiting += piece
        if len(self._waiting) >= PIECE_BYTES:
            await self._flush()

    async def keep(self) -> None:
        """Return when a power cut would lose nothing of it."""
        await self._flush()
        await self._run(self._finish)
        self.is_kept = True

    async def discard(self) -> None:
        """Nothing of it stays, not even what was kept."""
        await asyncio.shield(asyncio.to_thread(self._remove))

    async def _flush(self) -> None:
        piece, self._waiting = self._waiting, bytearray()
        await self._run(lambda: _write_all(self._file, piece))

    def _finish(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.rename(self._path)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        for path in (self._part, self._path):
            with contextlib.suppress(OSError):  # what stays is swept later
                path.unlink(missing_ok=True)

    async def _run(self, work: Callable[[], None]) -> None:
        task = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            # The thread goes on: the file must not be closed beneath it.
            await asyncio.gather(task, return_exceptions=True)
            raise
        except OSError as error:
            raise disk_error(error) from error


def disk_error(error: OSError) -> StorageError:
    """What *error* means for the one who runs the service."""
    if error.errno in _FULL:
        public = "the disk is full: free some space; nothing of the file is stored"
    else:
        public = "the files' folder cannot be read or written; the log says why"
    return StorageError(f"{public} ({error.filename or 'files'}: {error.strerror or error})", public=public)


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _write_all(file: BinaryIO, piece: bytearray) -> None:
    view = memoryview(piece)
    while view:
        view = view[file.write(view) :]
