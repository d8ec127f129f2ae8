"""What a replay counts, and that the optimum is one."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import InvalidRequest
from workers.residency.measures import UsageShares
from workers.residency.optimum import Optimum, optimum
from workers.residency.policy import POLICIES
from workers.residency.servers import Action, Eviction, ServerSpec
from workers.residency.simulator import next_places, replay

PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = "abcde"
TRACES = st.lists(st.sampled_from(NAMES), max_size=40)
SIZES = st.fixed_dictionaries({name: st.integers(1, 6).map(float) for name in NAMES})


def servers(size: float = 1.0, **sizes: float) -> dict[str, ServerSpec]:
    return {name: ServerSpec(name, sizes.get(name, size), load_s=10.0) for name in NAMES}


def specs(sizes: dict[str, float], *, sleepy: bool = False) -> dict[str, ServerSpec]:
    return {
        name: ServerSpec(name, mb, asleep_mb=mb / 4 if sleepy else None, load_s=10.0, sleep_s=2.0, wake_s=1.0) for name, mb in sizes.items()
    }


def fewest_loads(uses: list[str], known: dict[str, ServerSpec], host_mb: float) -> int:
    """By trying everything: all sets of servers that can be in memory after each need."""
    states: dict[frozenset[str], int] = {frozenset(): 0}
    for needed in uses:
        after: dict[frozenset[str], int] = {}
        for held, loads in states.items():
            for number in range(len(held) + 1):
                for kept in itertools.combinations(sorted(held), number):
                    now = frozenset(kept) | {needed}
                    if sum(known[name].memory_mb for name in now) <= host_mb:
                        after[now] = min(after.get(now, len(uses)), loads + (needed not in kept))
        states = after
    return min(states.values())


def test_a_replay_counts_hits_loads_and_time() -> None:
    found = replay("abacaba", servers(), host_mb=2, policy="lru")

    assert (found.num_uses, found.num_hits, found.num_loads, found.num_stops) == (7, 3, 4, 2)
    assert found.lost_s == 40.0
    assert found.hit_rate == 3 / 7


def test_policies_differ_where_they_should() -> None:
    """A loop over one server more than fits is the worst for lru; who sees the future keeps a part of it."""
    uses = "abc" * 4

    assert replay(uses, servers(), host_mb=2, policy="lru").num_loads == 12
    assert replay(uses, servers(), host_mb=2, policy="belady").num_loads == 7
    assert optimum(uses, servers(), host_mb=2) == Optimum(7, exact=True)


def test_cost_keeps_what_is_used_most() -> None:
    """Rare servers do not push the frequent one out, as they do under lru."""
    uses = "aabaacaad" * 3 + "bcd" + "a"

    assert replay(uses, servers(), host_mb=2, policy="cost").num_loads < replay(uses, servers(), host_mb=2, policy="lru").num_loads


def test_sleeping_saves_loads() -> None:
    sleepy = specs(dict.fromkeys(NAMES, 4.0), sleepy=True)
    found = replay("ababab", sleepy, host_mb=6, policy="lru")

    assert (found.num_loads, found.num_wakes, found.num_sleeps, found.num_stops) == (2, 4, 5, 0)
    assert found.lost_s == 2 * 10 + 4 * 1 + 5 * 2


def test_pinned_servers_are_there_from_the_start_and_stay() -> None:
    found = replay("ababab", servers(), host_mb=2, policy="lru", pinned=["e"])

    assert (found.num_loads, found.num_hits) == (7, 0)
    assert replay("eaeb", servers(), host_mb=2, policy="lru", pinned=["e"]).num_hits == 2
    assert optimum("ababab", servers(), host_mb=2, pinned=["e"]) == Optimum(7, exact=True)


@pytest.mark.parametrize(
    ("uses", "host_mb", "pinned", "told"),
    [
        ("abx", 2, [], "no server 'x'"),
        ("ab", 0.5, [], "server 'b' needs 1 MB and the host has 0.5 MB"),
        ("ab", 2, ["c", "d"], "pinned servers hold 2 MB"),
        ("ab", 1, ["c", "d"], "the pinned servers need 2 MB"),
    ],
)
def test_what_cannot_be_replayed_says_why(uses: str, host_mb: float, pinned: list[str], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        replay(uses, servers(), host_mb=host_mb, policy="lru", pinned=pinned)
    with pytest.raises(InvalidRequest, match=told):
        optimum(uses, servers(), host_mb=host_mb, pinned=pinned)


@PROPERTY
@given(uses=TRACES, slots=st.integers(1, 4))
def test_belady_loads_no_more_than_any_policy_when_sizes_are_equal(uses: list[str], slots: int) -> None:
    loads = {policy: replay(uses, servers(2.0), host_mb=2.0 * slots, policy=policy).num_loads for policy in POLICIES}

    assert loads["belady"] == min(loads.values())
    assert optimum(uses, servers(2.0), host_mb=2.0 * slots) == Optimum(loads["belady"], exact=True)


@PROPERTY
@given(uses=st.lists(st.sampled_from(NAMES), min_size=1, max_size=9), slots=st.integers(1, 3))
def test_the_optimum_for_equal_sizes_is_what_trying_everything_finds(uses: list[str], slots: int) -> None:
    assert optimum(uses, servers(), host_mb=slots).num_loads == fewest_loads(uses, servers(), slots)


@PROPERTY
@given(uses=st.lists(st.sampled_from(NAMES), min_size=1, max_size=9), sizes=SIZES, spare=st.integers(0, 6))
def test_the_bound_for_unequal_sizes_is_never_above_what_is_possible(uses: list[str], sizes: dict[str, float], spare: int) -> None:
    known, host_mb = specs(sizes), max(sizes.values()) + spare

    assert optimum(uses, known, host_mb=host_mb).num_loads <= fewest_loads(uses, known, host_mb)


@PROPERTY
@given(uses=TRACES, sizes=SIZES, spare=st.integers(0, 10), policy=st.sampled_from(sorted(POLICIES)), sleepy=st.booleans())
def test_memory_is_never_exceeded_and_no_policy_beats_the_bound(
    uses: list[str], sizes: dict[str, float], spare: int, policy: str, sleepy: bool
) -> None:
    known, host_mb = specs(sizes, sleepy=sleepy), max(sizes.values()) + spare
    held: dict[str, float] = {}
    most = 0.0

    def look(server_id: str, evictions: tuple[Eviction, ...]) -> None:
        nonlocal most
        for eviction in evictions:
            held[eviction.server_id] -= eviction.freed_mb
            assert eviction.action is Action.SLEEP or held.pop(eviction.server_id) == pytest.approx(0)
        held[server_id] = known[server_id].memory_mb
        most = max(most, sum(held.values()))

    found = replay(uses, known, host_mb=host_mb, policy=policy, on_use=look)

    assert most <= host_mb + 1e-5
    assert found.num_hits + found.num_loads + found.num_wakes == found.num_uses == len(uses)
    assert found.num_loads >= len(set(uses))
    assert found.num_loads >= optimum(uses, known, host_mb=host_mb).num_loads


@PROPERTY
@given(uses=TRACES)
def test_every_server_is_loaded_once_where_all_fit(uses: list[str]) -> None:
    for policy in POLICIES:
        assert replay(uses, servers(), host_mb=len(NAMES), policy=policy).num_loads == len(set(uses))


def test_the_bound_sees_that_two_large_servers_do_not_fit_together() -> None:
    """Shrunk to the size of e, all three would be loaded once; but in the memory beside the others there is room for one hit only."""
    assert optimum("ababe", servers(8.0, e=1.0), host_mb=9.0) == Optimum(4, exact=False)


def test_next_places_are_those_of_the_same_server() -> None:
    assert next_places("abab") == [2, 3, float("inf"), float("inf")]


@PROPERTY
@given(uses=st.lists(st.sampled_from(NAMES), min_size=1, max_size=300))
def test_shares_add_up_to_one_and_follow_the_uses(uses: list[str]) -> None:
    shares = UsageShares()
    for name in uses:
        shares.record(name)
    found = {name: shares.share(name) for name in NAMES}

    assert sum(found.values()) == pytest.approx(1)
    if len(uses) < 10:  # fading does not show yet
        counts = Counter(uses)
        assert found[max(counts, key=lambda name: counts[name])] >= 0.9 * max(found.values())
