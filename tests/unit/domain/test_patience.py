"""One timer for many waits: each of them ends when its own time is over, and nothing else ends it."""

from __future__ import annotations

import asyncio

import pytest

from domain.patience import Patience
from tests.fakes.virtual_time import in_virtual_time


def test_a_wait_ends_when_its_time_is_over() -> None:
    async def work() -> None:
        loop, patience = asyncio.get_running_loop(), Patience()
        began = loop.time()
        with pytest.raises(TimeoutError), patience.for_(3.0):
            await asyncio.sleep(10)
        assert 3.0 <= loop.time() - began < 3.5

    in_virtual_time(work)


def test_later_waits_have_their_own_time_though_the_first_one_s_timer_still_runs() -> None:
    async def work() -> None:
        loop, patience = asyncio.get_running_loop(), Patience()
        for _ in range(10):  # each within its limit, all together far beyond it
            with patience.for_(3.0):
                await asyncio.sleep(2.5)
        began = loop.time()
        with pytest.raises(TimeoutError), patience.for_(3.0):
            await asyncio.sleep(10)
        assert 3.0 <= loop.time() - began < 3.5

    in_virtual_time(work)


def test_a_shorter_wait_after_a_longer_one_ends_in_time() -> None:
    async def work() -> None:
        loop, patience = asyncio.get_running_loop(), Patience()
        with patience.for_(100.0):
            await asyncio.sleep(0)
        began = loop.time()
        with pytest.raises(TimeoutError), patience.for_(1.0):
            await asyncio.sleep(10)
        assert loop.time() - began < 1.5

    in_virtual_time(work)


def test_time_between_waits_does_not_count() -> None:
    async def work() -> None:
        patience = Patience()
        with patience.for_(1.0):
            await asyncio.sleep(0.5)
        await asyncio.sleep(5)
        with patience.for_(1.0):
            await asyncio.sleep(0.5)

    in_virtual_time(work)


def test_who_is_cancelled_from_outside_is_cancelled() -> None:
    async def work() -> None:
        async def waits() -> None:
            patience = Patience()
            with patience.for_(50.0):
                await asyncio.sleep(100)

        task = asyncio.ensure_future(waits())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    in_virtual_time(work)


def test_an_outer_limit_that_ends_first_is_not_taken_for_the_inner_one() -> None:
    async def work() -> None:
        ended: list[str] = []

        async def waits() -> None:
            async with asyncio.timeout(1.0):
                try:
                    with Patience().for_(5.0):
                        await asyncio.sleep(10)
                except TimeoutError:
                    ended.append("inner")

        with pytest.raises(TimeoutError):
            await waits()
        task = asyncio.current_task()
        assert task is not None
        assert (ended, task.cancelling()) == ([], 0)

    in_virtual_time(work)


def test_what_the_block_raises_comes_out() -> None:
    async def work() -> None:
        with pytest.raises(KeyError), Patience().for_(1.0):
            raise KeyError

    in_virtual_time(work)
