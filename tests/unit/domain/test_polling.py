"""Looking again and again, whatever a look meets."""

from __future__ import annotations

import asyncio
import logging

import pytest

from domain.errors import NotReady
from domain.polling import keep_looking


async def test_it_goes_on_after_every_failure_and_tells_of_an_outage_once(caplog: pytest.LogCaptureFixture) -> None:
    met = iter((None, NotReady("away"), NotReady("away"), ValueError("a bug"), None, NotReady("away again"), None))
    num_looks, done = 0, asyncio.Event()

    async def look() -> None:
        nonlocal num_looks
        num_looks += 1
        error = next(met, None)
        if num_looks == 7:
            done.set()
        if error is not None:
            raise error

    following = asyncio.create_task(keep_looking(look, 0.0, what="the log", log=logging.getLogger("test")))
    async with asyncio.timeout(5):
        await done.wait()
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following

    told = [record.message for record in caplog.records]
    assert [text for text in told if "cannot be read" in text] == [
        "the log cannot be read, requests go on with what is known: away",
        "the log cannot be read, requests go on with what is known: away again",
    ]
    assert told.count("reading the log failed") == 1
