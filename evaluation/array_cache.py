"""Arrays that took long to compute, kept on disk under a key made of what they were computed from."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]


def content_key(*parts: str | bytes | Iterable[str]) -> str:
    """A key of *parts*: alike for equal parts, different for anything else, however they are cut."""
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        pieces = [part] if isinstance(part, str | bytes) else part
        for piece in pieces:
            raw = piece if isinstance(piece, bytes) else piece.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)
        digest.update(b"\xff" * 8)
    return digest.hexdigest()


class ArrayCache:
    """Files in *folder*, at most *max_bytes* of them in all: those that were not used for longest go first.

    Safe to kill at any moment and to share between processes. A file that cannot be read counts as missing.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 2_000_000_000) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def get(self, key: str) -> Array | None:
        """The array under *key*, or None."""
        path = self._folder / f"{key}.npy"
        try:
            found: Array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        with suppress(OSError):
            os.utime(path)
        return found

    def put(self, key: str, values: Array) -> None:
        """Keep *values*; a disk that is full or read-only costs the next run its time, not this one its result."""
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._folder, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    np.save(file, values, allow_pickle=False)
                Path(name).replace(self._folder / f"{key}.npy")
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            self._shrink(keep=f"{key}.npy")

    def _shrink(self, *, keep: str) -> None:
        files = []
        for path in self._folder.iterdir():
            with suppress(OSError):
                about = path.stat()
                files.append((about.st_mtime, about.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._max_bytes:
                return
            if path.name != keep:
                with suppress(OSError):
                    path.unlink()
                total -= size
