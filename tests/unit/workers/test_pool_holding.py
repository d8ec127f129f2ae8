"""Calls to experts that have to be brought up first: what is waited for when, and on whose time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from domain.chat import Choice, ChoiceDelta, Chunk
from domain.deadline import Deadline
from domain.errors import ExpertError, ExpertOverloaded, ExpertRejected, ExpertTimeout, ExpertUnavailable, ExpertUnreachable
from domain.experts import Backend, ExpertCard
from domain.plan import Candidate, ExpertCall
from workers.limits import PoolLimits
from workers.pool import WorkerPool

CARD = ExpertCard("e1", Backend.VLLM, "/models/e1", timeout_s=10.0, max_in_flight=1, queue_timeout_s=5.0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class HoldingWorker:
    """Every hold has an address of its own; ``faults`` are what calls meet, one each, then they answer with their address."""

    def __init__(self, clock: Clock, *faults: ExpertError, load_s: float = 0.0, call_s: float = 0.0) -> None:
        self.clock, self.faults, self.load_s, self.call_s = clock, deque(faults), load_s, call_s
        self.num_holds = self.num_held = self.most_called = self.num_calling = 0
        self.gate: asyncio.Event | None = None
        self.refusal: ExpertError | None = None

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    @asynccontextmanager
    async def held(self, call: ExpertCall) -> AsyncIterator[ExpertCall]:
        if self.refusal is not None:
            raise self.refusal
        if self.gate is not None:
            await self.gate.wait()
        self.clock.now += self.load_s
        self.num_holds += 1
        self.num_held += 1
        try:
            yield replace(call, expert=replace(call.expert, base_url=f"http://server-{self.num_holds}/v1"))
        finally:
            self.num_held -= 1

    async def complete(self, call: ExpertCall) -> Candidate:
        for _ in range(3):
            await asyncio.sleep(0)  # where a timeout can strike
        self._called()
        return Candidate(call.expert.id, (Choice({"role": "assistant", "content": call.expert.base_url}),))

    async def stream(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
        self._called()
        yield Chunk((ChoiceDelta({"content": call.expert.base_url}),))
        yield Chunk((ChoiceDelta({}, finish_reason="stop"),))

    def _called(self) -> None:
        assert self.num_held, "called without being held"
        self.clock.now += self.call_s
        if self.faults:
            raise self.faults.popleft()


def pool_of(worker: HoldingWorker) -> WorkerPool:
    quick = PoolLimits(retry_wait_initial_s=0.0, retry_wait_max_s=0.0)
    return WorkerPool(embedded_dir=Path(), limits=quick, clock=worker.clock, backends={Backend.VLLM: lambda _: worker})


def call_in(worker: HoldingWorker, seconds: float = 1000.0, card: ExpertCard = CARD) -> ExpertCall:
    return ExpertCall(card, ({"role": "user", "content": "?"},), {}, Deadline.after(seconds, clock=worker.clock), "r1")


async def text_of(pool: WorkerPool, call: ExpertCall, *, streamed: bool) -> str:
    if not streamed:
        return (await pool.complete(call)).text
    return "".join([choice.delta.get("content", "") async for chunk in pool.stream(call) for choice in chunk.choices])


@pytest.mark.parametrize("streamed", [False, True])
async def test_every_attempt_holds_the_server_anew(streamed: bool) -> None:
    worker = HoldingWorker(Clock(), ExpertUnreachable("died"), ExpertUnreachable("died"))

    assert await text_of(pool_of(worker), call_in(worker), streamed=streamed) == "http://server-3/v1"
    assert worker.num_held == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_cannot_be_mended_by_another_attempt_is_not_tried_again(streamed: bool) -> None:
    worker = HoldingWorker(Clock(), ExpertRejected("bad"))

    with pytest.raises(ExpertRejected):
        await text_of(pool_of(worker), call_in(worker), streamed=streamed)
    assert (worker.num_holds, worker.num_held) == (1, 0)


async def test_a_hold_that_fails_is_the_call_s_failure() -> None:
    worker = HoldingWorker(Clock())
    worker.refusal = ExpertUnavailable("never fits")

    with pytest.raises(ExpertUnavailable, match="never fits"):
        await pool_of(worker).complete(call_in(worker))


async def test_the_wait_for_a_server_is_not_on_the_card_s_time() -> None:
    worker = HoldingWorker(Clock(), load_s=60.0)

    assert await text_of(pool_of(worker), call_in(worker), streamed=False) == "http://server-1/v1"


async def test_all_attempts_together_have_the_card_s_time() -> None:
    worker = HoldingWorker(Clock(), ExpertUnreachable("died"), ExpertUnreachable("died"), load_s=60.0, call_s=10.0)

    with pytest.raises(ExpertTimeout, match="within its 10 s"):
        await pool_of(worker).complete(call_in(worker))
    assert worker.num_holds == 2, "the first attempt took it all"


async def test_nobody_takes_a_place_while_the_server_comes_up() -> None:
    """Else those who wait for a load would fill the queue, and time out there."""
    worker = HoldingWorker(Clock())
    worker.gate = asyncio.Event()
    pool = pool_of(worker)
    tasks = [asyncio.create_task(pool.complete(call_in(worker))) for _ in range(5)]
    for _ in range(20):
        await asyncio.sleep(0)

    assert (pool.in_flight("e1"), pool.queued("e1")) == (0, 0)
    worker.gate.set()
    assert len(await asyncio.gather(*tasks)) == 5


async def test_a_stream_that_is_closed_lets_go_of_place_and_server() -> None:
    worker = HoldingWorker(Clock())
    pool = pool_of(worker)
    stream = pool.stream(call_in(worker))
    await anext(stream)
    assert (worker.num_held, pool.in_flight("e1")) == (1, 1)
    with pytest.raises(ExpertOverloaded):
        await pool.complete(call_in(worker, card=replace(CARD, queue_timeout_s=0.0)))
    await stream.aclose()

    assert (worker.num_held, pool.in_flight("e1")) == (0, 0)
