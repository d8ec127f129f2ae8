"""What holds whatever happens: decisions are the simulator's, memory is never exceeded, nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.deadline import Deadline
from domain.errors import ConsiliumError, ExpertUnreachable
from tests.fakes.server_host import Clock, FakeHost, House, turn
from workers.residency.limits import ResidencyLimits
from workers.residency.manager import Residency
from workers.residency.policy import POLICIES
from workers.residency.servers import Action, Eviction, ServerSpec
from workers.residency.simulator import replay

NAMES = "abcde"
TRACES = st.lists(st.sampled_from(NAMES), max_size=30)
SIZES = st.fixed_dictionaries({name: st.integers(1, 6).map(float) for name in NAMES})


def specs(sizes: dict[str, float], *, sleepy: bool) -> dict[str, ServerSpec]:
    return {
        name: ServerSpec(name, mb, asleep_mb=mb / 4 if sleepy else None, load_s=10.0 + mb, sleep_s=2.0, wake_s=1.0)
        for name, mb in sizes.items()
    }


SPENT: ContextVar[float] = ContextVar("seconds that the current task has spent", default=0.0)


class OwnClock(Clock):
    """Time passes for each task by itself: two servers that change at once do not see each other's seconds."""

    def __call__(self) -> float:
        return self.now + SPENT.get()


class TimedHost(FakeHost):
    """Takes exactly as long as the specs declare, so that what is measured is what was declared."""

    async def _do(self, verb: str, server_id: str) -> None:
        spec = self.specs[server_id]
        SPENT.set(SPENT.get() + {"load": spec.load_s, "sleep": spec.sleep_s, "wake": spec.wake_s, "stop": 0.0}[verb])
        await super()._do(verb, server_id)


def managed(uses: Sequence[str], known: dict[str, ServerSpec], host_mb: float, policy: str) -> tuple[list[str], Residency]:
    """What the residency asked of its host when the *uses* came one at a time."""

    async def run() -> tuple[list[str], Residency]:
        clock = OwnClock()
        host = TimedHost(known.values(), host_mb, clock)
        residency = Residency(host, memory_mb=host_mb, servers=known.values(), policy=policy, clock=clock)
        for place, name in enumerate(uses):
            if POLICIES[policy].foresees:
                residency.expect(uses[place + 1 :])
            async with residency.hold(name, Deadline.after(60)):
                pass
        await residency.close()
        return host.calls, residency

    return asyncio.run(run())


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(uses=TRACES, sizes=SIZES, spare=st.integers(0, 8), sleepy=st.booleans())
def test_the_simulator_decides_as_the_residency_does(
    policy: str, uses: list[str], sizes: dict[str, float], spare: int, sleepy: bool
) -> None:
    """Evictions for evictions, loads for loads, and the same time lost, for requests that come one at a time."""
    known, host_mb = specs(sizes, sleepy=sleepy), max(sizes.values()) + spare
    simulated: list[Counter[str]] = []

    def look(_: str, evictions: tuple[Eviction, ...]) -> None:
        simulated.append(Counter(f"{eviction.action} {eviction.server_id}" for eviction in evictions))

    told = replay(uses, known, host_mb=host_mb, policy=policy, on_use=look)
    calls, residency = managed(uses, known, host_mb, policy)
    evicted: list[Counter[str]] = [Counter()]
    for call in calls:
        verb = call.split()[0]
        if verb in {Action.SLEEP, Action.STOP}:
            evicted[-1][call] += 1
        else:
            evicted.append(Counter())

    assert [some for some in simulated if some] == [some for some in evicted if some]
    counts = residency.counts
    assert (told.num_hits, told.num_loads, told.num_wakes) == (counts.num_hits, counts.num_loads, counts.num_wakes)
    assert (told.num_sleeps, told.num_stops, told.lost_s) == (counts.num_sleeps, counts.num_stops, pytest.approx(counts.lost_s))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    sizes=SIZES,
    spare=st.integers(0, 8),
    sleepy=st.booleans(),
    policy=st.sampled_from(sorted(POLICIES)),
    num_requests=st.integers(1, 40),
)
def test_a_storm_of_requests_leaves_everything_in_order(
    seed: int, sizes: dict[str, float], spare: int, sleepy: bool, policy: str, *, num_requests: int
) -> None:
    """Requests that come, wait, are cancelled and fail in any order, with prefetches, evictions by hand and deaths between them.

    The host itself checks that memory is never exceeded, that no server is taken away while it serves or changed twice at once.
    Here: everybody gets in or is told why not, and afterwards nothing is held, waits or runs.
    """
    random = Random(seed)
    known, host_mb = specs(sizes, sleepy=sleepy), max(sizes.values()) + spare
    outcomes: Counter[str] = Counter()
    evictions: list[asyncio.Task[None]] = []

    async def request(home: House, name: str) -> None:
        await turn(random.randrange(30))
        try:
            async with home.residency.hold(name, Deadline.after(60), lambda _: None):
                home.host.held[name] += 1
                try:
                    await turn(random.randrange(10))
                finally:
                    home.host.held[name] -= 1
            outcomes["served"] += 1
        except ConsiliumError:
            outcomes["refused"] += 1
        except asyncio.CancelledError:
            outcomes["cancelled"] += 1
            raise

    async def disturb(home: House) -> None:
        for _ in range(num_requests // 3):
            await turn(random.randrange(20))
            name = random.choice(NAMES)
            match random.randrange(5):
                case 0:
                    home.residency.prefetch(name)
                case 1:
                    home.host.fail(f"{random.choice(['load', 'stop', 'sleep', 'wake'])} {name}", ExpertUnreachable("no luck"))
                case 2:
                    home.residency.expect(random.choices(NAMES, k=5))
                case 3:
                    evictions.append(asyncio.create_task(home.residency.evict(name, Action.STOP, Deadline.after(60))))
                case _:
                    home.host.clock.now += random.random() * 10

    async def run() -> None:
        host = FakeHost(known.values(), host_mb)
        residency = Residency(
            host, memory_mb=host_mb, servers=known.values(), policy=policy, limits=ResidencyLimits(stuck_retry_s=0.001), clock=host.clock
        )
        home = House(residency, host)
        tasks = [asyncio.create_task(request(home, random.choice(NAMES))) for _ in range(num_requests)]
        tasks.append(asyncio.create_task(disturb(home)))
        for task in random.sample(tasks[:-1], k=num_requests // 4):
            asyncio.get_running_loop().call_soon(task.cancel)
        async with asyncio.timeout(20):
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            by_hand = await asyncio.gather(*evictions, return_exceptions=True)
        assert all(end is None or isinstance(end, ConsiliumError) for end in by_hand)
        assert [end for end in ends if end is not None and not isinstance(end, asyncio.CancelledError)] == []
        after = residency.snapshot()
        assert [server.num_holders for server in after.servers] == [0] * len(NAMES)
        assert [server.num_waiting for server in after.servers] == [0] * len(NAMES)
        host.failures.clear()
        for name in NAMES:  # every server can still be had
            if home.state(name) == "stuck":
                await residency.evict(name, Action.STOP, Deadline.after(20))
            async with residency.hold(name, Deadline.after(20)):
                pass
        await residency.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())

    # One that is cancelled before it has begun tells nothing.
    assert outcomes.total() >= num_requests - num_requests // 4
    assert outcomes.total() <= num_requests
