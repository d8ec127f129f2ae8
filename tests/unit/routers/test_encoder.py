"""The encoder's queue, cache and thread, over a model that is not there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from domain.errors import DeadlineExceeded, NotReady, Overloaded, ServiceError
from routers.encoder import Encoder, EncoderLimits
from tests.fakes.encoder import FakeTextModel


@asynccontextmanager
async def running(model: FakeTextModel, **limits: float) -> AsyncIterator[Encoder]:
    encoder = Encoder(lambda: model, limits=EncoderLimits(**limits))  # type: ignore[arg-type]
    await encoder.start()
    try:
        yield encoder
    finally:
        await encoder.close()


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not fact():
            await asyncio.sleep(0)


async def entered(model: FakeTextModel) -> None:
    assert await asyncio.to_thread(model.entered.wait, 10)


async def test_vectors_come_in_the_order_of_the_texts() -> None:
    async with running(FakeTextModel()) as encoder:
        together = await encoder.encode(["one", "two", "one", "three"])
        alone = [(await encoder.encode([text]))[0] for text in ("one", "two", "one", "three")]

    assert together.dtype == np.float32
    assert np.array_equal(together, np.stack(alone))


async def test_equal_texts_are_encoded_once() -> None:
    model = FakeTextModel()
    async with running(model) as encoder:
        await encoder.encode(["one", "one", "two"])
        await encoder.encode(["two", "one"])

    assert model.runs == [("one", "two")]


async def test_no_texts_give_no_vectors_and_no_run() -> None:
    model = FakeTextModel()
    async with running(model) as encoder:
        vectors = await encoder.encode([])

    assert vectors.shape == (0, model.dimensions)
    assert model.runs == []


async def test_what_waits_while_a_run_is_on_is_encoded_together() -> None:
    gate = threading.Event()
    model = FakeTextModel(gate=gate)
    async with running(model) as encoder:
        first = asyncio.create_task(encoder.encode(["first"]))
        await entered(model)
        others = [asyncio.create_task(encoder.encode([f"text {i}"])) for i in range(5)]
        await until(lambda: encoder.num_queued == 5)
        gate.set()
        await asyncio.gather(first, *others)

    assert model.runs == [("first",), tuple(f"text {i}" for i in range(5))]


async def test_a_long_list_lets_others_in_between() -> None:
    gate = threading.Event()
    model = FakeTextModel(gate=gate)
    async with running(model, max_batch=2) as encoder:
        long = asyncio.create_task(encoder.encode(["a", "b", "c", "d"]))
        await entered(model)
        short = asyncio.create_task(encoder.encode(["query"]))
        await until(lambda: encoder.num_queued == 1)
        gate.set()
        await asyncio.gather(long, short)

    assert model.runs[1][0] == "query"


async def test_a_full_queue_refuses_at_once() -> None:
    gate = threading.Event()
    model = FakeTextModel(gate=gate)
    async with running(model, max_queued=2) as encoder:
        tasks = [asyncio.create_task(encoder.encode(["running"]))]
        await entered(model)
        tasks += [asyncio.create_task(encoder.encode([text])) for text in ("a", "b")]
        await until(lambda: encoder.num_queued == 2)
        with pytest.raises(Overloaded):
            await encoder.encode(["one too many"])
        gate.set()
        await asyncio.gather(*tasks)

        assert (await encoder.encode(["one too many"])).shape[0] == 1


async def test_a_caller_that_goes_away_costs_no_run() -> None:
    gate = threading.Event()
    model = FakeTextModel(gate=gate)
    async with running(model) as encoder:
        first = asyncio.create_task(encoder.encode(["first"]))
        await entered(model)
        gone = asyncio.create_task(encoder.encode(["gone"]))
        await until(lambda: encoder.num_queued == 1)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        gate.set()
        await first
        await encoder.encode(["last"])

    assert model.runs == [("first",), ("last",)]


async def test_a_stuck_run_ends_the_wait_at_the_limit() -> None:
    gate = threading.Event()
    async with running(FakeTextModel(gate=gate), timeout_s=0.01) as encoder:
        with pytest.raises(DeadlineExceeded):
            await encoder.encode(["text"])
        gate.set()


async def test_a_failing_run_is_told_to_its_callers_and_the_next_one_works() -> None:
    model = FakeTextModel()
    async with running(model) as encoder:
        model.error = RuntimeError("out of memory")
        with pytest.raises(ServiceError, match="out of memory"):
            await encoder.encode(["text"])
        model.error = None

        assert (await encoder.encode(["text"])).shape[0] == 1


async def test_only_the_end_of_a_long_text_counts_and_invalid_unicode_is_replaced() -> None:
    model = FakeTextModel(max_chars=8)
    async with running(model) as encoder:
        await encoder.encode(["a long story. question", "bad \ud800"])

    assert model.runs == [("question", "bad ?")]


async def test_the_cache_forgets_what_was_used_longest_ago() -> None:
    model = FakeTextModel()
    async with running(model, cache_size=2) as encoder:
        for text in ("a", "b", "a", "c", "a", "b"):
            await encoder.encode([text])

    assert model.runs == [("a",), ("b",), ("c",), ("b",)]


async def test_before_start_and_after_close_it_is_not_ready() -> None:
    model = FakeTextModel()
    encoder = Encoder(lambda: model)
    with pytest.raises(NotReady):
        await encoder.encode(["text"])
    await encoder.start()
    ready = encoder.ready
    await encoder.close()
    await encoder.close()

    assert ready
    assert model.closed
    assert encoder.encoder_id == model.encoder_id, "what waits to be stored bears it"
    with pytest.raises(NotReady):
        await encoder.encode(["text"])


async def test_closing_fails_what_still_waits() -> None:
    gate = threading.Event()
    model = FakeTextModel(gate=gate)
    encoder = Encoder(lambda: model)
    await encoder.start()
    first = asyncio.create_task(encoder.encode(["first"]))
    await entered(model)
    waiting = asyncio.create_task(encoder.encode(["waiting"]))
    await until(lambda: encoder.num_queued == 1)
    closing = asyncio.create_task(encoder.close())
    await asyncio.sleep(0)
    gate.set()
    await closing

    assert (await first).shape[0] == 1
    with pytest.raises(NotReady):
        await waiting


async def test_a_model_that_cannot_be_loaded_fails_the_start() -> None:
    def load() -> FakeTextModel:
        raise NotReady("no such model")

    encoder = Encoder(load)
    with pytest.raises(NotReady, match="no such model"):
        await encoder.start()
    await encoder.close()


def test_scripts_encode_without_a_thread_and_load_the_model_once() -> None:
    loads = []
    model = FakeTextModel()
    encoder = Encoder(lambda: loads.append(1) or model)  # type: ignore[func-returns-value]
    first = encoder.encode_now(["one", "two"])
    second = encoder.encode_now(["two"])

    assert np.array_equal(first[1], second[0])
    assert len(loads) == 1
    assert model.runs == [("one", "two")]
