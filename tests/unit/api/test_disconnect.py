"""Work for a caller ends with the caller, and with nothing else that is not its own."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from api.disconnect import ClientGone, while_connected


class Caller:
    """A connection that is closed when the test says so."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}


class Work:
    """Runs until it is cancelled, and needs a moment to end then."""

    def __init__(self) -> None:
        self.started, self.ended = asyncio.Event(), False

    async def run(self) -> str:
        self.started.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            self.ended = True
        return "done"


async def test_the_result_comes_back_and_nothing_is_left_running() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    before = asyncio.all_tasks()
    assert await while_connected({}, Caller().receive, answer()) == 42
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_caller_that_goes_away_ends_the_work_first() -> None:
    caller, work = Caller(), Work()
    asking = asyncio.ensure_future(while_connected({}, caller.receive, work.run()))
    await work.started.wait()
    caller.gone.set()

    with pytest.raises(ClientGone):
        await asking
    assert work.ended
    assert not asking.cancelled()


async def test_a_server_that_stops_cancels_as_always() -> None:
    work = Work()
    asking = asyncio.ensure_future(while_connected({}, Caller().receive, work.run()))
    await work.started.wait()
    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
    assert work.ended
    assert asking.cancelled()


async def test_a_limit_inside_the_work_is_its_own_affair() -> None:
    async def limited() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            return "late"
        return "in time"

    assert await while_connected({}, Caller().receive, limited()) == "late"


async def test_who_asked_goes_on_after_a_caller_that_went_away() -> None:
    """No request to cancel is left behind for the next wait."""

    async def asks() -> str:
        caller = Caller()
        caller.gone.set()
        with pytest.raises(ClientGone):
            await while_connected({}, caller.receive, Work().run())
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return f"went on, {task.cancelling()} requests to cancel"

    assert await asyncio.ensure_future(asks()) == "went on, 0 requests to cancel"


async def test_a_failure_of_the_work_is_raised_as_it_is() -> None:
    async def fails() -> None:
        raise KeyError("a")

    with pytest.raises(KeyError):
        await while_connected({}, Caller().receive, fails())
