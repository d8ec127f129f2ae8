"""Whose turn it is."""

from __future__ import annotations

import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers.residency.admission import Closing, Demand, Placement, place
from workers.residency.policy import POLICIES
from workers.residency.servers import Action, Eviction, Resident

PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LRU, BELADY = POLICIES["lru"], POLICIES["belady"]


def held(*residents: Resident) -> dict[str, Resident]:
    return {resident.id: resident for resident in residents}


def serving(server_id: str, memory_mb: float, **known: float | bool) -> Resident:
    return Resident(server_id, memory_mb, busy=True, serving=True, **known)  # type: ignore[arg-type]


def stopped(*freed: tuple[str, float]) -> tuple[Eviction, ...]:
    return tuple(Eviction(server_id, Action.STOP, mb) for server_id, mb in freed)


def test_what_fits_comes_up() -> None:
    assert place([Demand("b", 4)], held(Resident("a", 4)), 8, LRU) == Placement(cleared=("b",))


def test_idle_servers_make_room() -> None:
    found = place([Demand("c", 4)], held(Resident("a", 4, last_use=2), Resident("b", 4, last_use=1)), 8, LRU)

    assert found == Placement(cleared=("c",), evictions=stopped(("b", 4)))


def test_what_is_decided_for_one_holds_for_the_next() -> None:
    """The second cannot have the memory of the first, nor evict it, nor what was evicted."""
    found = place(
        [Demand("c", 4), Demand("d", 4), Demand("e", 4)], held(Resident("a", 4, last_use=1), Resident("b", 4, last_use=2)), 8, LRU
    )

    assert found.cleared == ("c", "d")
    assert found.evictions == stopped(("a", 4), ("b", 4))
    assert found.closing == Closing("e", frozenset())


def test_the_first_that_has_to_wait_closes_what_is_in_its_way() -> None:
    """Only what the policy would evict; requests for the others go on."""
    busy = held(serving("a", 4, last_use=1), serving("b", 4, last_use=2))
    found = place([Demand("c", 4), Demand("a", 4, awake=True), Demand("b", 4, awake=True)], busy, 8, LRU)

    assert found == Placement(granted=("b",), closing=Closing("c", frozenset({"a"})))


def test_older_requests_for_a_server_are_let_in_before_it_is_closed() -> None:
    found = place([Demand("a", 4, awake=True), Demand("c", 4)], held(Resident("a", 4)), 4, LRU)

    assert found == Placement(granted=("a",), closing=Closing("c", frozenset({"a"})))


def test_requests_that_came_after_the_one_in_front_do_not_keep_their_server() -> None:
    """It was closed, is idle now and goes; its requests bring it back when it is their turn."""
    found = place([Demand("c", 4), Demand("a", 4, awake=True)], held(Resident("a", 4)), 4, LRU, Closing("c", frozenset({"a"})))

    assert found == Placement(cleared=("c",), evictions=stopped(("a", 4)))


def test_a_closed_set_stays_closed_until_it_is_idle() -> None:
    """Although the policy would choose another one now: else two streams could take turns in keeping a third out for ever."""
    busy = held(serving("a", 4, last_use=9), serving("b", 4, last_use=2))

    assert place([Demand("c", 4)], busy, 8, LRU, Closing("c", frozenset({"a"}))).closing == Closing("c", frozenset({"a"}))


def test_a_closed_set_that_does_not_help_any_more_is_chosen_anew() -> None:
    busy = held(serving("a", 4, last_use=9, pinned=True), serving("b", 4, last_use=2))

    assert place([Demand("c", 4)], busy, 8, LRU, Closing("c", frozenset({"a"}))).closing == Closing("c", frozenset({"b"}))


def test_one_that_becomes_idle_first_ends_the_wait() -> None:
    busy = held(serving("a", 4, last_use=1), Resident("b", 4, last_use=2))
    found = place([Demand("c", 4)], busy, 8, LRU, Closing("c", frozenset({"a"})))

    assert found == Placement(cleared=("c",), evictions=stopped(("b", 4)))


def test_nobody_overtakes_at_the_expense_of_the_first() -> None:
    """The 2 MB that are free are a part of what the first needs once the closed server has gone."""
    found = place([Demand("large", 8), Demand("small", 2)], held(serving("a", 6)), 8, LRU)

    assert found == Placement(closing=Closing("large", frozenset({"a"})))


def test_who_takes_nothing_from_the_first_may_overtake() -> None:
    found = place([Demand("large", 6), Demand("small", 2)], held(serving("a", 6)), 8, LRU)

    assert found == Placement(cleared=("small",), closing=Closing("large", frozenset({"a"})))


def test_a_load_that_nobody_waits_for_gives_way_to_a_request() -> None:
    found = place([Demand("b", 8)], held(Resident("a", 8, speculative=True)), 8, LRU)

    assert found.evictions == stopped(("a", 8))


def test_what_can_never_fit_is_refused_and_delays_nobody() -> None:
    found = place([Demand("huge", 9), Demand("b", 4)], held(Resident("agg", 2, pinned=True)), 8, LRU)

    assert [refused.server_id for refused in found.refused] == ["huge"]
    assert found.cleared == ("b",)


def test_a_prefetch_takes_free_memory_and_idle_servers() -> None:
    wish = Demand("b", 4, prefetch=True)

    assert place([wish], {}, 8, LRU) == Placement(cleared=("b",))
    assert place([wish], held(Resident("a", 8)), 8, LRU) == Placement(cleared=("b",), evictions=stopped(("a", 8)))


def test_a_prefetch_takes_nothing_from_anybody() -> None:
    """Neither from who serves, nor from who waits, nor from another prefetch, nor what is needed sooner."""
    wish = Demand("b", 4, prefetch=True, next_use=5)

    assert place([wish], held(serving("a", 8)), 8, LRU) == Placement(dropped=("b",))
    assert place([Demand("c", 8), wish], held(serving("a", 4)), 8, LRU).dropped == ("b",)
    assert place([wish], held(Resident("a", 8, speculative=True)), 8, LRU) == Placement(dropped=("b",))
    assert place([wish], held(Resident("a", 8, next_use=3)), 8, BELADY) == Placement(dropped=("b",))
    assert place([wish], held(Resident("a", 8, next_use=7)), 8, BELADY).cleared == ("b",)


@st.composite
def hosts(draw: st.DrawFn) -> tuple[list[Demand], dict[str, Resident], float]:
    """A host within its memory, and a queue of servers that are not up, or up and waited for."""
    sizes = draw(st.lists(st.integers(1, 8).map(float), min_size=1, max_size=8))
    kinds = [draw(st.sampled_from(["gone", "idle", "asleep", "serving", "loading", "speculative", "pinned"])) for _ in sizes]
    residents = {}
    for number, (size, kind) in enumerate(zip(sizes, kinds, strict=True)):
        if kind != "gone":
            residents[f"s{number}"] = Resident(
                f"s{number}",
                size / 4 if kind == "asleep" else size,
                asleep_mb=draw(st.sampled_from([None, size / 4])) if kind in {"idle", "serving"} else None,
                pinned=kind == "pinned",
                busy=kind in {"serving", "loading"},
                serving=kind == "serving",
                speculative=kind == "speculative",
                last_use=draw(st.integers(0, 9)),
                next_use=draw(st.sampled_from([math.inf, 1.0, 2.0, 3.0])),
                load_s=10,
                reuse_probability=draw(st.floats(0, 1)),
            )
    up = {"idle", "serving", "pinned"}
    order = draw(st.permutations(range(len(sizes))))
    waited = [n for n in order if kinds[n] not in {"loading", "speculative"} and draw(st.booleans())]
    queue = [Demand(f"s{n}", sizes[n], awake=kinds[n] in up) for n in waited]
    host_mb = math.fsum(resident.memory_mb for resident in residents.values()) + draw(st.integers(0, 10))
    return queue, residents, host_mb


@PROPERTY
@given(hosts(), st.sampled_from(sorted(POLICIES)))
def test_what_is_decided_fits_and_takes_nothing_from_who_works(host: tuple[list[Demand], dict[str, Resident], float], policy: str) -> None:
    """For every mixture of servers and requests."""
    queue, residents, host_mb = host
    found = place(queue, residents, host_mb, POLICIES[policy])
    sizes = {demand.server_id: demand.memory_mb for demand in queue}
    after = {server_id: resident.memory_mb for server_id, resident in residents.items()}
    for eviction in found.evictions:
        gone = residents[eviction.server_id]
        assert not gone.pinned
        assert not gone.busy
        assert gone.id not in found.granted
        after[gone.id] -= eviction.freed_mb
    for server_id in found.cleared:
        after[server_id] = sizes[server_id]

    assert math.fsum(after.values()) <= host_mb + 1e-5
    assert len({*found.granted, *found.cleared}) == len(found.granted) + len(found.cleared)


@PROPERTY
@given(hosts(), st.sampled_from(sorted(POLICIES)))
def test_the_oldest_request_always_gets_on(host: tuple[list[Demand], dict[str, Resident], float], policy: str) -> None:
    """It is let in, comes up, is refused, or waits for servers that end: those that are closed for it, or that are on their way."""
    queue, residents, host_mb = host
    if not queue:
        return
    first = queue[0]
    found = place(queue, residents, host_mb, POLICIES[policy])

    if first.server_id in {*found.granted, *found.cleared, *(refused.server_id for refused in found.refused)}:
        return
    assert found.closing is not None
    assert found.closing.for_server == first.server_id
    on_their_way = any(resident.busy and not resident.serving for resident in residents.values())
    assert found.closing.server_ids or on_their_way
    assert not found.closing.server_ids & set(found.granted)
    if found.closing.server_ids:
        left = [r.memory_mb for r in residents.values() if r.id not in {*found.closing.server_ids, first.server_id}]
        assert math.fsum(left) + first.memory_mb <= host_mb + 1e-5
