"""Places are bounded, handed over in order and never lost."""

from __future__ import annotations

import asyncio

import pytest

from domain.deadline import Deadline
from domain.errors import ExpertOverloaded, ExpertTimeout
from workers.in_flight import InFlight


class Guest:
    """A call that holds a place until it is told to leave."""

    def __init__(self, places: InFlight, *, limit: int = 1, max_queued: int = 10, timeout_s: float = 60, deadline_s: float = 600) -> None:
        self.inside, self.leave = asyncio.Event(), asyncio.Event()
        self._places, self._limit, self._max_queued = places, limit, max_queued
        self._timeout_s, self._deadline = timeout_s, Deadline.after(deadline_s)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        place = self._places.place("e1", limit=self._limit, max_queued=self._max_queued, timeout_s=self._timeout_s, deadline=self._deadline)
        async with place:
            self.inside.set()
            await self.leave.wait()


async def turn() -> None:
    """Let everybody who can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_waits_longest_gets_the_next_place() -> None:
    places = InFlight()
    guests = [Guest(places) for _ in range(3)]
    await turn()
    counts = [(places.active("e1"), places.queued("e1"))]
    for guest in guests:
        assert guest.inside.is_set()
        guest.leave.set()
        await turn()
        counts.append((places.active("e1"), places.queued("e1")))

    assert counts == [(1, 2), (1, 1), (1, 0), (0, 0)]


async def test_the_queue_is_bounded() -> None:
    places = InFlight()
    first, second = Guest(places, max_queued=1), Guest(places, max_queued=1)
    await turn()

    with pytest.raises(ExpertOverloaded, match="queue is full"):
        await Guest(places, max_queued=1).task
    for guest in (first, second):
        guest.leave.set()
    await asyncio.gather(first.task, second.task)


async def test_waiting_is_bounded() -> None:
    places = InFlight()
    first = Guest(places)
    await turn()

    with pytest.raises(ExpertOverloaded, match="no place") as caught:
        await Guest(places, timeout_s=0).task
    assert caught.value.retry_after_s == 1.0
    assert places.queued("e1") == 0
    first.leave.set()
    await first.task


async def test_a_deadline_spent_in_the_queue_is_nobody_s_fault() -> None:
    places = InFlight()
    first = Guest(places)
    await turn()

    with pytest.raises(ExpertTimeout, match="request's deadline") as caught:
        await Guest(places, deadline_s=0.01).task
    assert not caught.value.expert_at_fault
    assert places.queued("e1") == 0
    first.leave.set()
    await first.task


async def test_a_cancelled_guest_leaves_the_queue() -> None:
    places = InFlight()
    first, second, third = (Guest(places) for _ in range(3))
    await turn()
    second.task.cancel()
    await turn()
    first.leave.set()
    await turn()

    assert third.inside.is_set()
    third.leave.set()
    await third.task
    assert places.active("e1") == 0


async def test_a_place_handed_to_a_guest_who_is_cancelled_in_that_moment_goes_on() -> None:
    places = InFlight()
    first, second, third = (Guest(places) for _ in range(3))
    await turn()
    first.leave.set()
    await first.task  # the place is the second's now, which has not run yet
    second.task.cancel()
    await turn()

    assert third.inside.is_set()
    third.leave.set()
    await third.task
    assert (places.active("e1"), places.queued("e1")) == (0, 0)


async def test_a_guest_who_gives_up_as_the_last_one_leaves_takes_nobody_s_place() -> None:
    """Whoever comes before it has run again has places of its own."""
    places = InFlight()
    first, second = Guest(places), Guest(places)
    await turn()
    first.leave.set()
    third = Guest(places)
    second.task.cancel()  # runs behind the first, which leaves, and the third, which comes
    await turn()

    assert third.inside.is_set()
    assert places.active("e1") == 1
    third.leave.set()
    await third.task
    assert (places.active("e1"), places.queued("e1")) == (0, 0)


async def test_a_higher_limit_lets_more_in() -> None:
    places = InFlight()
    guests = [Guest(places), Guest(places)]
    await turn()
    guests.append(Guest(places, limit=3))
    await turn()

    assert [guest.inside.is_set() for guest in guests] == [True, True, True]
    for guest in guests:
        guest.leave.set()
    await asyncio.gather(*(guest.task for guest in guests))
