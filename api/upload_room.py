"""The room that stored files and running uploads share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from domain.errors import PayloadTooLarge

if TYPE_CHECKING:
    from experts_registry.files import FileStore


class UploadRoom:
    """Bytes of the files that are stored and of those that this process is receiving, so that many uploads at once cannot write more
    than one after the other could. Of other processes it sees what they have stored. Lives on one event loop."""

    def __init__(self) -> None:
        self._num_stored = 0
        """As it was known last."""
        self._num_taken = 0
        """By uploads that run."""
        self._storing = asyncio.Lock()

    async def look(self, files: FileStore) -> None:
        """Find out anew what is stored. Raises ``StorageError``."""
        self._num_stored = await files.num_bytes()

    def take(self, num_bytes: int, max_bytes: int) -> None:
        """Before *num_bytes* more are written; an upload gives back what it took when it is over. Raises ``PayloadTooLarge``."""
        if self._num_stored + self._num_taken + num_bytes > max_bytes:
            raise _full()
        self._num_taken += num_bytes

    def give_back(self, num_bytes: int) -> None:
        self._num_taken -= num_bytes

    @asynccontextmanager
    async def storing(self, num_bytes: int, files: FileStore, max_bytes: int) -> AsyncIterator[None]:
        """The block stores a file of *num_bytes*, one block at a time. Others may have stored theirs since it was begun. Raises
        ``PayloadTooLarge`` or ``StorageError``."""
        async with self._storing:
            await self.look(files)
            if self._num_stored + num_bytes > max_bytes:
                raise _full()
            yield
            self._num_stored += num_bytes


def _full() -> PayloadTooLarge:
    message = "all files together would be larger than the service keeps (CONSILIUM_MAX_FILES_BYTES): delete some first"
    return PayloadTooLarge(message, param="file")
