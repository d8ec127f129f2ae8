"""How a batch ends: every line gets a result, and the results are written to files."""

from __future__ import annotations

import logging
from array import array
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType

from domain.batch import Batch, BatchErrorCode
from domain.errors import Conflict, ConsiliumError, StorageError
from orchestrator.batch.input_file import InputFile
from orchestrator.batch.ledger import tell_lines, writing
from orchestrator.batch.parts import EngineParts
from orchestrator.batch.ports import BatchJournal, DirectShape
from orchestrator.batch.routes import RouteTableBuilder
from orchestrator.batch.routing import chunks
from orchestrator.batch.waves import advance
from orchestrator.batch.work import BatchWork, Requests, not_run

log = logging.getLogger(__name__)

_WHY = {
    BatchErrorCode.EXPIRED: "the batch's window ended before this line was answered",
    BatchErrorCode.CANCELLED: "the batch was cancelled before this line was answered",
    BatchErrorCode.BUDGET: "the batch had spent its tokens, or its key its budget, before this line was answered",
    BatchErrorCode.INTERNAL: "the batch broke off, by a fault of the service's own, before this line was answered",
}


async def close_lines(batch: Batch, journal: BatchJournal, parts: EngineParts, code: BatchErrorCode) -> None:
    """Lines whose every call has ended get what came of them, all others that are not over fail with *code*."""
    try:
        await _answer_what_has_ended(batch, journal, parts)
    except (StorageError, Conflict):
        raise
    except Exception as error:  # the input file is gone, or there is a bug: what it hits must not keep the batch from ending
        log.error("lines of batch %s whose calls have ended count as not answered: %s", batch.id, error, exc_info=error)
    async for chunk in chunks(journal.pending(), parts.limits.chunk_lines):
        results = [not_run(batch.id, line.input.line.number, code, _WHY[code]) for line in chunk]
        await journal.keep((), results, num_calls=0)
        tell_lines(parts.on_lines, results)


async def _answer_what_has_ended(batch: Batch, journal: BatchJournal, parts: EngineParts) -> None:
    """The calls of a line of several are kept as they end, its result only when somebody comes to it."""
    shape, builder, numbers, cascades = parts.shapes[batch.endpoint], RouteTableBuilder(), array("I"), array("I")
    if isinstance(shape, DirectShape):
        return
    async for line in journal.pending():
        if line.route is not None and line.route.waves is not None:
            cascades.append(line.input.line.number)
        elif line.route is not None:
            builder.add(line.route.selected, line.route.aggregator)
            numbers.append(line.input.line.number)
    if not numbers and not cascades:
        return
    requests = Requests(batch.id, batch.options, shape, parts.lines, parts.wire_error, rights=parts.rights_of(batch))
    with InputFile(await parts.files.open(batch.input_file_id)) as file:
        async with writing(journal, parts.limits, on_lines=parts.on_lines) as ledger:
            work = BatchWork(
                builder.build(), numbers, requests=requests, file=file, journal=journal, ledger=ledger, limits=parts.limits, max_tokens=None
            )  # fmt: skip
            await work.resume()
            await work.finish()
            await advance(
                cascades, requests=requests, file=file, journal=journal, ledger=ledger, limits=parts.limits
            )  # those that would ask somebody else stay as they are
            await ledger.flush()


class BatchFilesOf:
    """A batch's output and error file. Unless its row may name them when the block ends, nothing of them stays: they are written anew
    by whoever goes on."""

    def __init__(self, batch: Batch, journal: BatchJournal, parts: EngineParts) -> None:
        self._batch, self._journal, self._parts = batch, journal, parts
        self.may_be_named = False
        self.output_file_id: str | None = None
        self.error_file_id: str | None = None
        self.codes: set[str] = set()
        """Of the errors that were written."""

    async def __aenter__(self) -> BatchFilesOf:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.may_be_named:
            return
        for file_id in (self.output_file_id, self.error_file_id):
            if file_id is not None:
                with suppress(ConsiliumError):  # what stays expires
                    await self._parts.files.delete(file_id)

    async def write(self) -> None:
        """Those of both that have lines. Raises ``StorageError`` when the disk is full."""
        batch, files = self._batch, self._parts.files
        counts = (await self._parts.store.get(batch.id)).counts
        if counts.completed:
            self.output_file_id = (await files.write(f"{batch.id}_output.jsonl", self._lines(failed=False), key_id=batch.key_id)).id
        if counts.failed:
            self.error_file_id = (await files.write(f"{batch.id}_error.jsonl", self._lines(failed=True), key_id=batch.key_id)).id

    async def _lines(self, *, failed: bool) -> AsyncIterator[bytes]:
        async for custom_id, result in self._journal.results(failed=failed):
            if result.error is not None:
                self.codes.add(str(result.error.get("code")))
            yield self._parts.output_line(custom_id, result)
