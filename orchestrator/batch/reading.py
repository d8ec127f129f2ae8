"""Validate an input file off the event loop, a chunk at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import BinaryIO

from domain.batch import BatchError, InputLine
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.validation import CheckBody, InputRequest, read_input

_CHUNK = 1000
"""Lines that are read in one go: about 10 ms of a thread, and one write to the journal."""


async def read_lines(
    file: BinaryIO, endpoint: str, limits: BatchLimits, check_body: CheckBody
) -> AsyncIterator[tuple[list[InputLine], list[BatchError]]]:
    """The valid lines and the errors of *file*, chunk by chunk; ends after as many errors as are told at most.

    Raises ``InvalidRequest`` for an *endpoint* that no batch can have.
    """
    found, num_errors = read_input(file, endpoint, limits.input, check_body=check_body), 0
    while chunk := await asyncio.to_thread(_next, found):
        lines = [one for one in chunk if isinstance(one, InputLine)]
        errors = [one for one in chunk if isinstance(one, BatchError)][: limits.input.max_errors - num_errors]
        num_errors += len(errors)
        yield lines, errors
        if num_errors >= limits.input.max_errors:
            return


def _next(found: Iterator[InputRequest | BatchError]) -> list[InputLine | BatchError]:
    """A line's body is let go of before the next one is read: a thousand of the largest would be gigabytes."""
    return [one if isinstance(one, BatchError) else InputLine(one.line, one.offset, one.num_bytes) for one in islice(found, _CHUNK)]
