"""What the batch engine needs from the outside. The others satisfy these structurally; nobody inherits from them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, BinaryIO, Protocol, runtime_checkable

from domain.batch import Batch, BatchError, BatchRunner, BatchState, InputLine, KeptCall, LineResult, LineRoute, RoutedLine, StoredFile
from domain.chat import ChatRequest
from domain.deadline import Deadline
from domain.plan import Outcome
from orchestrator.answer import Answer
from orchestrator.batch.host import Host


class BatchJournal(Protocol):
    """What is durable of one batch. Every ``keep…`` returns when a kill at any moment later loses nothing of it, and keeping the
    same thing twice is keeping it once. Raises ``StorageError`` while the database cannot be reached, ``Conflict`` when
    another process has taken the batch over."""

    async def keep_lines(self, lines: Sequence[InputLine]) -> None:
        """Valid lines of the input, while it is read."""
        ...

    async def drop_lines(self) -> None:
        """Forget every line, and that there were any: the input is refused."""
        ...

    async def keep_routes(self, routes: Sequence[tuple[int, LineRoute]]) -> None:
        """By the number of the line."""
        ...

    async def keep(self, calls: Sequence[KeptCall], results: Sequence[LineResult], *, num_calls: int) -> Batch:
        """In one transaction: calls that have ended, lines that are over (their calls are dropped), and the batch's counts, usage
        and *num_calls* more calls. A line that is over already stays as it is, and is not counted again. The batch afterwards."""
        ...

    def pending(self) -> AsyncIterator[RoutedLine]:
        """Lines that are not over, by number."""
        ...

    async def calls(self, numbers: Sequence[int]) -> Mapping[int, Mapping[int, Outcome]]:
        """The kept calls of these lines: number to position to outcome."""
        ...

    async def lines(self, numbers: Sequence[int]) -> Mapping[int, RoutedLine]:
        """These lines by number; those that are over are left out."""
        ...

    def settled(self) -> AsyncIterator[tuple[int, int, bool]]:
        """(number, position, whether it answered) of every kept call of lines that are not over, by number and position."""
        ...

    def results(self, *, failed: bool) -> AsyncIterator[tuple[str, LineResult]]:
        """The lines that are over with their custom ids, by number: those with an error when *failed*, else those with an answer."""
        ...


class BatchStore(Protocol):
    """All batches. Raises ``StorageError`` while the database cannot be reached."""

    async def get(self, batch_id: str) -> Batch:
        """Raises ``NotFound``."""
        ...

    async def claim(
        self, owner: str, *, lease_s: float, runner: BatchRunner | None, besides: Collection[str] = (), ending: bool = False
    ) -> Batch | None:
        """The oldest batch for *runner* (None: for anybody) that is not over and that nobody works on (its lease has run out, or there is
        none), now *owner*'s for *lease_s*; None when there is none. Two processes never get the same one. None of *besides*; when
        *ending*, only one that was asked to cancel or whose window has passed."""
        ...

    async def renew(self, batch_id: str, owner: str, *, lease_s: float) -> Batch:
        """Keep it for *lease_s* more; the batch as it is now (it may have been asked to cancel). Raises ``Conflict`` when it is
        somebody else's by now."""
        ...

    async def release(self, batch_id: str, owner: str) -> None:
        """Give it up at once, so that another may claim it."""
        ...

    async def enter(
        self,
        batch_id: str,
        state: BatchState,
        *,
        errors: Sequence[BatchError] = (),
        output_file_id: str | None = None,
        error_file_id: str | None = None,
        owner: str | None = None,
    ) -> Batch:
        """Change its state; where it is already, nothing changes. Raises ``Conflict`` when it cannot come to that from where it
        is, or when an *owner* is named whose it is not any more."""
        ...

    def journal(self, batch_id: str, owner: str) -> BatchJournal:
        """For the process that has claimed it."""
        ...


class BatchFiles(Protocol):
    """The files' contents. No method blocks the event loop for long."""

    async def open(self, file_id: str) -> BinaryIO:
        """Open for reading in a thread; the caller closes it. Raises ``NotFound``."""
        ...

    async def write(self, filename: str, lines: AsyncIterator[bytes], *, key_id: str | None = None) -> StoredFile:
        """A new ``batch_output`` file of the key *key_id*; it exists when all of it is written. Raises ``StorageError`` when the disk is
        full."""
        ...

    async def delete(self, file_id: str) -> None:
        """Raises ``NotFound``."""
        ...


class Fleet(Protocol):
    """The managed servers of this host."""

    @property
    def trouble(self) -> str | None:
        """Why no server can be started by this process at all, for now; None when that is not so."""
        ...

    def host(self, expert_ids: Sequence[str]) -> Host:
        """These experts as a plan sees them, and the devices as they are now."""
        ...

    def hold(self, server_id: str, deadline: Deadline) -> AbstractAsyncContextManager[None]:
        """The server up and answering for as long as the block lasts. Raises ``ExpertError``. Hold none while waiting for
        another."""
        ...

    def release(self, server_id: str) -> None:
        """The plan is done with it, and will need its memory: it may go, if nobody else uses it or waits for it."""
        ...

    def expect(self, server_ids: Sequence[str]) -> None:
        """The servers that will be needed, soonest first; replaces what was expected before."""
        ...

    def measured(self, expert_id: str, *, call_s: float, aggregation: bool) -> None:
        """A bucket has ended: seconds that each of its calls added."""
        ...


class ChatShape(Protocol):
    """How one endpoint's bodies become chat requests and answers become its bodies (chat completions, completions)."""

    def request(self, body: Mapping[str, Any], request_id: str) -> ChatRequest:
        """Raises ``RequestError``."""
        ...

    def answer(self, request: ChatRequest, body: Mapping[str, Any], answer: Answer) -> Mapping[str, Any]:
        """The response's body."""
        ...


@runtime_checkable
class DirectShape(Protocol):
    """An endpoint that calls no expert (embeddings)."""

    def check(self, body: Mapping[str, Any]) -> None:
        """Raises ``RequestError`` for a body that it does not take."""
        ...

    async def answer(self, body: Mapping[str, Any], request_id: str) -> Mapping[str, Any]:
        """The response's body. Raises ``ConsiliumError``."""
        ...


Shape = ChatShape | DirectShape

OutputLine = Callable[[str, LineResult], bytes]
"""From a custom id and a result to a line of the output or error file, its end included."""
