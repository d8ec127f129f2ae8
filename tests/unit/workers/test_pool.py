"""The pool retries, keeps the time and cleans up, whatever the backend."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain.chat import Choice, ChoiceDelta, Chunk, Usage
from domain.deadline import Deadline
from domain.errors import ExpertError, ExpertOverloaded, ExpertProtocolError, ExpertRejected, ExpertTimeout, ExpertUnreachable
from domain.experts import Backend, ExpertCard
from domain.plan import Candidate, ExpertCall
from workers.limits import PoolLimits
from workers.pool import WorkerPool
from workers.retry import retried

CARD = ExpertCard("e1", Backend.OPENAI, "m")
ROLE = Chunk((ChoiceDelta({"role": "assistant", "content": ""}),))


def said(text: str) -> Chunk:
    return Chunk((ChoiceDelta({"content": text}),))


class ScriptedWorker:
    """Fails as often as it is told, then answers; streams what it is told, an error among it."""

    def __init__(self, *failures: ExpertError, streams: tuple[tuple[Chunk | ExpertError, ...], ...] = ()) -> None:
        self.failures, self.streams = deque(failures), deque(streams)
        self.num_calls = self.num_closed = 0
        self.closed = False

    async def start(self) -> None: ...

    async def close(self) -> None:
        self.closed = True

    async def complete(self, call: ExpertCall) -> Candidate:
        self.num_calls += 1
        if self.failures:
            raise self.failures.popleft()
        return Candidate(call.expert.id, (Choice({"role": "assistant", "content": "yes"}),))

    async def stream(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
        self.num_calls += 1
        try:
            for item in self.streams.popleft():
                if isinstance(item, ExpertError):
                    raise item
                yield item
        finally:
            self.num_closed += 1


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def pool_of(worker: Any, **limits: Any) -> WorkerPool:
    quick = PoolLimits(**{"retry_wait_initial_s": 0.0, "retry_wait_max_s": 0.0, **limits})
    return WorkerPool(embedded_dir=Path(), limits=quick, clock=Clock(), backends={Backend.OPENAI: lambda _: worker})


def call_in(seconds: float = 60.0, card: ExpertCard = CARD) -> ExpertCall:
    return ExpertCall(card, ({"role": "user", "content": "?"},), {}, Deadline(100.0 + seconds, Clock()), "r1")


async def collect(pool: WorkerPool) -> list[Chunk]:
    return [chunk async for chunk in pool.stream(call_in())]


async def test_retryable_failures_are_tried_again_and_counted() -> None:
    worker = ScriptedWorker(ExpertUnreachable("1"), ExpertProtocolError("2"))
    candidate = await pool_of(worker).complete(call_in())

    assert (candidate.text, candidate.num_retries, worker.num_calls) == ("yes", 2, 3)


async def test_the_last_failure_is_told_when_attempts_run_out() -> None:
    worker = ScriptedWorker(*(ExpertUnreachable(str(i)) for i in range(5)))

    with pytest.raises(ExpertUnreachable, match="2"):
        await pool_of(worker, max_attempts=3).complete(call_in())
    assert worker.num_calls == 3


@pytest.mark.parametrize("error", [ExpertRejected("no"), ExpertTimeout("late")])
async def test_other_failures_are_told_at_once(error: ExpertError) -> None:
    worker = ScriptedWorker(error)

    with pytest.raises(type(error)):
        await pool_of(worker).complete(call_in())
    assert worker.num_calls == 1


async def test_failures_are_freed_without_the_garbage_collector() -> None:
    """It seldom looks, and what a failure leads to is as large as the request."""
    failures: list[weakref.ref[ExpertError]] = []

    def noted(error: ExpertError) -> ExpertError:
        failures.append(weakref.ref(error))
        return error

    async def attempt() -> None:
        raise noted(ExpertUnreachable("gone"))

    limits = PoolLimits(retry_wait_initial_s=0.0, retry_wait_max_s=0.0)
    gc.collect()
    gc.disable()
    try:
        with suppress(ExpertUnreachable):
            await retried(attempt, limits, Deadline.after(60), "e1")
        left = [failure() for failure in failures]
    finally:
        gc.enable()

    assert left == [None] * limits.max_attempts


async def test_retry_after_is_kept_when_it_fits() -> None:
    worker = ScriptedWorker(ExpertOverloaded("busy", retry_after_s=0.0))

    assert (await pool_of(worker, retry_wait_initial_s=1000.0, retry_wait_max_s=1000.0).complete(call_in())).num_retries == 1


async def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    worker = ScriptedWorker(ExpertOverloaded("busy", retry_after_s=61.0))

    with pytest.raises(ExpertOverloaded, match="busy"):
        await pool_of(worker).complete(call_in(60))
    assert worker.num_calls == 1


async def test_a_stream_is_tried_again_until_its_first_token() -> None:
    """The role alone is no token yet; of a failed attempt nothing is passed on."""
    worker = ScriptedWorker(
        streams=((ExpertUnreachable("1"),), (ROLE, ExpertProtocolError("2")), (ROLE, said("yes"), Chunk(usage=Usage(1, 1))))
    )

    assert await collect(pool_of(worker)) == [ROLE, said("yes"), Chunk(usage=Usage(1, 1))]
    assert worker.num_closed == 3


async def test_a_stream_is_not_tried_again_after_its_first_token() -> None:
    worker = ScriptedWorker(streams=((said("ye"), ExpertProtocolError("broke")), (said("no"),)))
    pool, got = pool_of(worker), []

    with pytest.raises(ExpertProtocolError, match="broke"):
        got += [got.append(chunk) async for chunk in pool.stream(call_in())]  # type: ignore[func-returns-value]
    assert got == [said("ye")]
    assert worker.num_calls == 1
    assert pool.in_flight("e1") == 0


async def test_a_stream_without_a_word_is_a_protocol_error() -> None:
    worker = ScriptedWorker(streams=((), (Chunk(usage=Usage()),), ()))

    with pytest.raises(ExpertProtocolError, match="without saying anything"):
        await collect(pool_of(worker))
    assert worker.num_calls == 3


async def test_closing_a_stream_closes_the_worker_s() -> None:
    worker = ScriptedWorker(streams=((said("a"), said("b")),))
    pool = pool_of(worker)
    stream = pool.stream(call_in())
    await anext(stream)
    during = pool.in_flight("e1")
    await stream.aclose()

    assert (during, pool.in_flight("e1"), worker.num_closed) == (1, 0, 1)


async def test_a_backend_is_built_once_however_many_call_at_once() -> None:
    built = []

    def build(_: object) -> Any:
        built.append(worker := ScriptedWorker())
        return worker

    pool = WorkerPool(embedded_dir=Path(), backends={Backend.OPENAI: build})
    card_call = ExpertCall(CARD, (), {}, Deadline.after(60), "r1")
    await asyncio.gather(*(pool.complete(card_call) for _ in range(10)))
    await pool.close()

    assert len(built) == 1
    assert built[0].closed


class Never(ScriptedWorker):
    """Hangs in every call."""

    async def complete(self, call: ExpertCall) -> Candidate:
        await asyncio.Event().wait()
        raise AssertionError

    async def stream(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
        await asyncio.Event().wait()
        yield ROLE


async def test_the_earlier_of_deadline_and_card_limit_counts() -> None:
    pool = pool_of(Never())
    card = replace(CARD, timeout_s=0.01)

    with pytest.raises(ExpertTimeout, match=r"within its 0\.01 s"):
        await pool.complete(call_in(60, card))
    with pytest.raises(ExpertTimeout, match="deadline"):
        await pool.complete(call_in(0.01))
    with pytest.raises(ExpertTimeout, match="no time"):
        await pool.complete(call_in(0))


@pytest.mark.parametrize(
    ("timeout_s", "deadline_s", "at_fault"),
    [
        (0.01, 60, True),  # it had all the time of its card
        (0.01, 0.0099, True),  # as good as all
        (60, 0.01, False),  # the caller gave it next to none
        (60, 0, False),
    ],
)
async def test_a_caller_in_a_hurry_says_nothing_about_the_expert(timeout_s: float, deadline_s: float, at_fault: bool) -> None:
    pool, call = pool_of(Never()), call_in(deadline_s, replace(CARD, timeout_s=timeout_s))

    for run in (pool.complete(call), anext(pool.stream(call))):
        with pytest.raises(ExpertTimeout) as caught:
            await run
        assert caught.value.expert_at_fault is at_fault


async def test_time_in_the_queue_is_not_the_call_s() -> None:
    """Who waits long for a place still has the card's whole time for the call."""
    clock, release = Clock(), asyncio.Event()

    class Slow(ScriptedWorker):
        async def complete(self, call: ExpertCall) -> Candidate:
            await release.wait()
            return await super().complete(call)

    pool = WorkerPool(embedded_dir=Path(), clock=clock, backends={Backend.OPENAI: lambda _: Slow()})
    card = replace(CARD, max_in_flight=1, timeout_s=5.0, queue_timeout_s=60.0)
    call = ExpertCall(card, (), {}, Deadline(clock.now + 1000.0, clock), "r1")
    calls = [asyncio.create_task(pool.complete(call)) for _ in range(2)]
    while not pool.queued("e1"):
        await asyncio.sleep(0)
    clock.now += 20.0
    release.set()

    assert [candidate.text for candidate in await asyncio.gather(*calls)] == ["yes", "yes"]


async def test_the_first_token_has_a_limit_of_its_own() -> None:
    """It is the expert's fault, however much time the request has left; the whole answer may take longer."""
    pool, card = pool_of(Never()), replace(CARD, first_token_timeout_s=0.01)

    with pytest.raises(ExpertTimeout, match=r"'e1' did not say anything within its 0\.01 s") as caught:
        await anext(pool.stream(call_in(60, card)))
    assert caught.value.expert_at_fault
    assert pool.in_flight("e1") == 0


async def test_the_limit_of_the_first_token_is_over_with_it() -> None:
    clock, go_on = Clock(), asyncio.Event()

    class Pausing(ScriptedWorker):
        async def stream(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
            yield said("a")
            await go_on.wait()
            yield said("b")

    pool = WorkerPool(embedded_dir=Path(), clock=clock, backends={Backend.OPENAI: lambda _: Pausing()})
    call = ExpertCall(replace(CARD, first_token_timeout_s=5.0), (), {}, Deadline(clock.now + 1000.0, clock), "r1")
    stream = pool.stream(call)
    chunks = [await anext(stream)]
    clock.now += 50.0
    go_on.set()
    chunks += [chunk async for chunk in stream]

    assert chunks == [said("a"), said("b")]


@pytest.mark.parametrize(
    ("card", "deadline_s", "says"),
    [
        (replace(CARD, idle_timeout_s=0.01), 60, r"went silent for 0\.01 s in the middle of its answer"),
        (replace(CARD, timeout_s=0.05), 60, r"did not finish within its 0\.05 s"),
        (CARD, 0.05, "did not finish before the request's deadline"),
    ],
)
async def test_silence_between_tokens_is_bounded_by_whatever_ends_first(card: ExpertCard, deadline_s: float, says: str) -> None:
    class Stuck(ScriptedWorker):
        async def stream(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
            yield said("a")
            await asyncio.Event().wait()

    pool = WorkerPool(embedded_dir=Path(), backends={Backend.OPENAI: lambda _: Stuck()})
    stream = pool.stream(ExpertCall(card, (), {}, Deadline.after(deadline_s), "r1"))
    assert await anext(stream) == said("a")

    with pytest.raises(ExpertTimeout, match=says):
        await anext(stream)
    assert pool.in_flight("e1") == 0


class Dawdling(ScriptedWorker):
    """Says ``a`` and, after some turns of the loop, ``b``."""

    async def stream(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
        yield said("a")
        for _ in range(20):  # turns in which a timer that is due rings
            await asyncio.sleep(0)
        yield said("b")


async def test_time_in_which_nobody_takes_the_next_piece_is_not_the_expert_s() -> None:
    clock = Clock()
    pool = WorkerPool(embedded_dir=Path(), clock=clock, backends={Backend.OPENAI: lambda _: Dawdling()})
    stream = pool.stream(ExpertCall(replace(CARD, timeout_s=60.0), (), {}, Deadline(clock.now + 1000.0, clock), "r1"))
    chunks = []
    async for chunk in stream:
        chunks.append(chunk)
        clock.now += 200.0  # it is read slowly

    assert chunks == [said("a"), said("b")]


@pytest.mark.parametrize(
    ("held_s", "at_fault"),
    [
        (1000.0, False),  # the reader has used the request's time up
        (30.0, True),  # what it left was the card's whole time, and more
    ],
)
async def test_whose_fault_a_late_stream_is_depends_on_who_has_used_the_time(held_s: float, at_fault: bool) -> None:
    clock = Clock()

    class Late(ScriptedWorker):
        async def stream(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
            yield said("a")
            clock.now += 1000.0 - held_s
            yield said("b")
            await asyncio.Event().wait()

    pool = WorkerPool(embedded_dir=Path(), clock=clock, backends={Backend.OPENAI: lambda _: Late()})
    stream = pool.stream(ExpertCall(replace(CARD, timeout_s=60.0), (), {}, Deadline(clock.now + 1000.0, clock), "r1"))
    await anext(stream)
    clock.now += held_s
    with pytest.raises(ExpertTimeout, match="did not finish before the request's deadline" if not at_fault else "did not finish") as caught:
        async for _ in stream:
            pass

    assert caught.value.expert_at_fault is at_fault


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "num_calls"),
    [(ExpertProtocolError("half"), 1), (ExpertUnreachable("reset"), 1), (ExpertOverloaded("busy", retry_after_s=0.0), 3)],
)
async def test_what_is_stored_is_sent_again_only_when_nothing_was_done(failure: ExpertError, num_calls: int, stream: bool) -> None:
    """An answer with ``store`` would stand at the provider twice; one that was refused for lack of room was not begun."""
    worker = ScriptedWorker(*[failure] * 5, streams=((failure,),) * 5)
    call = replace(call_in(), params={"store": True})

    with pytest.raises(type(failure)):
        await (anext(pool_of(worker).stream(call)) if stream else pool_of(worker).complete(call))
    assert worker.num_calls == num_calls


async def test_an_expert_that_hangs_takes_nobody_else_s_places() -> None:
    """Its places and its queue fill up, further calls of it are refused at once, and another expert answers as ever."""

    class OneHangs(Never):
        async def complete(self, call: ExpertCall) -> Candidate:
            if call.expert.id == "e1":
                return await super().complete(call)
            return await ScriptedWorker.complete(self, call)

    pool, hanging = pool_of(OneHangs()), replace(CARD, max_in_flight=2, max_queued=3)
    stuck = [asyncio.create_task(pool.complete(call_in(600, hanging))) for _ in range(5)]
    while (pool.in_flight("e1"), pool.queued("e1")) != (2, 3):
        await asyncio.sleep(0)

    with pytest.raises(ExpertOverloaded, match="its queue is full"):
        await pool.complete(call_in(600, hanging))
    assert [(await pool.complete(call_in(60, replace(CARD, id="e2")))).text for _ in range(10)] == ["yes"] * 10
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
    assert (pool.in_flight("e1"), pool.queued("e1")) == (0, 0)
