"""The answer as it is produced: real tokens of the last step, and signs of life before them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from domain.chat import Chunk
from domain.patience import Patience
from domain.routing import RoutingDecision
from domain.trace import Trace
from orchestrator.answer import Progress
from orchestrator.limits import Limits
from orchestrator.modes.relay import text_in
from orchestrator.preparation import Prepared
from orchestrator.recorder import TraceRecorder

KEEP_ALIVE_S = 4.5
"""Longest silence on a stream while experts work, before the first token and between tokens: the promised five seconds with some
room to send, and under the idle limits of common proxies (30 to 60 s)."""
_MAX_AHEAD = 64
"""Chunks that are taken from an expert before the reader has taken those before them: what came in one packet goes out in one."""

Event = Chunk | Progress


class AnswerStream:
    """An opened stream. Iterate it to the end or ``aclose()`` it; either way the trace is complete afterwards.

    One task takes the chunks from the expert, at most ``_MAX_AHEAD`` more than the reader has taken; a task for each would cost more
    than all else that is done for a token. What counts for the trace is what the reader has taken.
    """

    def __init__(self, prepared: Prepared, recorder: TraceRecorder, *, limits: Limits) -> None:
        self._recorder, self._limits = recorder, limits
        self._taker: asyncio.Task[None] | None = None
        self._chunks: deque[Chunk] = deque()
        self._progress: deque[str] = deque(maxlen=64)
        self._stirred: asyncio.Future[None] | None = None
        """The reader waits for it."""
        self._room: asyncio.Future[None] | None = None
        """The taker waits for it."""
        self._patience = Patience()
        self._ended_at: float | None = None
        self._is_closed = False
        self.request_id = prepared.request.id
        self.strategy = recorder.strategy
        self.instead(prepared)

    def instead(self, prepared: Prepared) -> None:
        """*prepared* is carried out from now on."""
        self._prepared = prepared
        self.announced_aggregator = prepared.mode.announced
        self.num_planned_calls = prepared.context.decision.num_calls + prepared.mode.num_calls

    @property
    def decision(self) -> RoutingDecision:
        return self._prepared.context.decision

    @property
    def trace(self) -> Trace:
        """The finished trace. Raises ``RuntimeError`` while the stream still runs."""
        if self._recorder.trace is None:
            raise RuntimeError("the stream has not ended; iterate it to the end or close it first")
        return self._recorder.trace

    @property
    def route_ms(self) -> float:
        return self._recorder.stage_ms("route")

    @property
    def overhead_ms(self) -> float:
        """Our own milliseconds so far."""
        return self._recorder.overhead_ms()

    @property
    def has_next(self) -> bool:
        """Whether the next event is a chunk that is there already."""
        return bool(self._chunks)

    def start(self, chunks: AsyncGenerator[Chunk, None]) -> None:
        """Begin to take *chunks*, which are closed in every case."""
        self._taker = asyncio.ensure_future(self._take(chunks))
        self._taker.add_done_callback(self._on_end)

    def progress(self, text: str) -> None:
        """Say that something happened before tokens can flow."""
        self._progress.append(text)
        self._stir()

    async def hold_for_first_event(self) -> None:
        """Wait for the first token, but only so long that headers are not held back. Raises what failed until then."""
        if self._taker is None:
            raise RuntimeError("start() comes first")
        alone = self._prepared.mode.is_alone
        clock = asyncio.get_running_loop().time
        until = clock() + (self._limits.hold_first_token_s if alone else self._limits.hold_headers_s)
        try:
            while not self._chunks and not self._taker.done() and (left := until - clock()) > 0:
                if not await self._until_stirred(left):
                    break
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if not self._chunks and self._taker.done():
            self._raise_failure()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._taker is None or self._is_closed:
            raise StopAsyncIteration
        while not self._chunks:
            if self._progress:
                return Progress(self._progress.popleft())
            if self._taker.done():
                self._raise_failure()
                self._finish(None)
                raise StopAsyncIteration
            if not await self._until_stirred(KEEP_ALIVE_S):
                return Progress("working")
        chunk = self._chunks.popleft()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._recorder.wrote(text_in(chunk))
        return chunk

    async def aclose(self) -> None:
        """Cancel what still runs. Safe to call twice and after the end."""
        self._is_closed, taker, self._taker = True, self._taker, None
        self._chunks.clear()
        try:
            if taker is not None and not taker.done():
                taker.cancel()
                await asyncio.wait({taker}, timeout=self._limits.close_grace_s)
        finally:
            self._finish(asyncio.CancelledError())

    async def _take(self, chunks: AsyncGenerator[Chunk, None]) -> None:
        async with aclosing(chunks):
            async for chunk in chunks:
                self._chunks.append(chunk)
                self._stir()
                if len(self._chunks) >= _MAX_AHEAD:
                    with self._recorder.timing("reader"):
                        await self._until_taken()

    async def _until_taken(self) -> None:
        while len(self._chunks) >= _MAX_AHEAD:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def _until_stirred(self, seconds: float) -> bool:
        """Whether something has happened within *seconds*."""
        self._stirred = asyncio.get_running_loop().create_future()
        try:
            with self._patience.for_(seconds):
                await self._stirred
        except TimeoutError:
            return False
        finally:
            self._stirred = None
        return True

    def _stir(self) -> None:
        if self._stirred is not None and not self._stirred.done():
            self._stirred.set_result(None)

    def _on_end(self, taker: asyncio.Task[None]) -> None:
        if not taker.cancelled():
            taker.exception()  # retrieved, so that nobody is warned about it: the reader is told, if it is still there
        self._ended_at = time.perf_counter()
        self._stir()

    def _raise_failure(self) -> None:
        """Raise what the taker has failed with, and let go of both: each holds the other, and with it the whole request until the
        garbage collector looks."""
        if self._taker is None:
            return
        error = asyncio.CancelledError() if self._taker.cancelled() else self._taker.exception()
        if error is None:
            return
        self._taker = None
        self._finish(error)
        try:
            raise error
        finally:
            del error

    def _finish(self, error: BaseException | None) -> None:
        """The trace is complete. What the reader took longer than the expert is no time of ours."""
        self._patience.close()
        if self._recorder.trace is None and self._ended_at is not None:
            self._recorder.ends("reader", self._ended_at)
        self._recorder.finish(error)
