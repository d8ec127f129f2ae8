"""A wait with a limit ends when its time is over, and nothing else is taken for that."""

from __future__ import annotations

import asyncio

import pytest

from domain.time_limit import TimeLimit
from tests.fakes.virtual_time import in_virtual_time


@pytest.mark.parametrize("seconds", [3.0, 0.0, -5.0])
def test_a_wait_ends_when_its_time_is_over(seconds: float) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimeoutError), TimeLimit(seconds):
            await asyncio.sleep(10)
        assert max(0.0, seconds) <= loop.time() - began < max(0.0, seconds) + 0.5
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    in_virtual_time(work)


def test_a_wait_that_ends_in_time_is_not_disturbed_later() -> None:
    async def work() -> None:
        with TimeLimit(3.0):
            await asyncio.sleep(2)
        await asyncio.sleep(10)

    in_virtual_time(work)


def test_who_is_cancelled_from_outside_is_cancelled() -> None:
    async def work() -> None:
        async def waits() -> None:
            with TimeLimit(5.0):
                await asyncio.sleep(100)

        task = asyncio.ensure_future(waits())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    in_virtual_time(work)


def test_who_is_cancelled_from_outside_in_the_moment_in_which_the_time_is_over_is_cancelled() -> None:
    async def work() -> None:
        async def waits() -> None:
            asyncio.get_running_loop().call_later(5.0, task.cancel)  # runs in one turn with the limit's own
            with TimeLimit(5.0):
                await asyncio.sleep(100)

        task = asyncio.ensure_future(waits())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    in_virtual_time(work)


@pytest.mark.parametrize(("outer", "inner", "expected"), [(1.0, 5.0, "outer"), (5.0, 1.0, "inner")])
def test_of_two_limits_the_one_that_is_over_says_so(outer: float, inner: float, expected: str) -> None:
    async def work() -> None:
        ended = "nobody"
        try:
            with TimeLimit(outer):
                try:
                    with TimeLimit(inner):
                        await asyncio.sleep(10)
                except TimeoutError:
                    ended = "inner"
        except TimeoutError:
            ended = "outer"
        assert ended == expected

    in_virtual_time(work)


def test_what_the_block_raises_comes_out() -> None:
    async def work() -> None:
        with pytest.raises(KeyError), TimeLimit(1.0):
            raise KeyError

    in_virtual_time(work)


def test_what_the_block_raises_when_its_time_is_over_comes_out_too() -> None:
    async def fails_late() -> None:
        with TimeLimit(1.0):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                raise KeyError from None

    async def work() -> None:
        with pytest.raises(KeyError):
            await fails_late()

    in_virtual_time(work)
