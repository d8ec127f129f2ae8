"""How long calls wait for their place, as the metrics hear it."""

from __future__ import annotations

import asyncio

import pytest

from domain.deadline import Deadline
from domain.errors import ExpertOverloaded
from workers.in_flight import InFlight

LATER = Deadline.after(3600)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_each_calls_wait_is_told_with_its_expert_and_role() -> None:
    clock, heard = Clock(), list[tuple[str, str, float]]()
    places = InFlight(lambda *told: heard.append(told), clock)
    taken = asyncio.Event()

    async def second() -> None:
        async with places.place("a", limit=1, max_queued=1, timeout_s=60, deadline=LATER, role="judge"):
            taken.set()

    async with places.place("a", limit=1, max_queued=1, timeout_s=60, deadline=LATER, role="candidate"):
        assert heard == [("a", "candidate", 0.0)]
        waiting = asyncio.create_task(second())
        while not places.queued("a"):
            await asyncio.sleep(0)
        clock.now += 2.5
    await waiting

    assert taken.is_set()
    assert heard == [("a", "candidate", 0.0), ("a", "judge", 2.5)]


async def test_a_wait_that_came_to_nothing_is_told_too() -> None:
    clock, heard = Clock(), list[float]()
    places = InFlight(lambda _expert, _role, seconds: heard.append(seconds), clock)
    async with places.place("a", limit=1, max_queued=0, timeout_s=60, deadline=LATER):
        with pytest.raises(ExpertOverloaded):
            async with places.place("a", limit=1, max_queued=0, timeout_s=60, deadline=LATER):
                raise AssertionError("there is one place only")

    assert heard == [0.0, 0.0]
