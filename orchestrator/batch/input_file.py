"""The lines of a batch's input file, read again by where they stand, off the event loop."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO

from domain.batch import InputLine

Body = Mapping[str, Any]


class InputLost(Exception):
    """The input file is not what it was when it was validated. Never leaves the engine."""


class InputFile:
    """Open for as long as its ``with`` block lasts."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __enter__(self) -> InputFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    async def bodies(self, lines: Sequence[InputLine]) -> list[Body]:
        """The ``body`` of each. Raises ``InputLost`` when the file is not what it was when it was validated."""
        return await asyncio.to_thread(self._bodies, lines)

    def _bodies(self, lines: Sequence[InputLine]) -> list[Body]:
        return [self._body(line) for line in lines]

    def _body(self, line: InputLine) -> Body:
        try:
            raw = os.pread(self._file.fileno(), line.num_bytes, line.offset)
            payload = json.loads(raw.decode("utf-8-sig"))
            if payload["custom_id"] == line.line.custom_id:
                body: Body = payload["body"]
                return body
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputLost(f"line {line.line.number} of the batch's input file cannot be read again: {error}") from error
        raise InputLost(f"the batch's input file was changed: line {line.line.number} is another one")
