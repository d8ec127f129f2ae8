"""Which servers make room, and that nothing else ever goes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import InvalidRequest
from workers.residency.policy import POLICIES, make_room, next_uses, policy_named
from workers.residency.servers import Action, Eviction, NoRoom, Resident, Room, ServerSpec

SIZES = st.integers(1, 40).map(lambda quarters: quarters / 4)
HOSTS = st.integers(1, 60).map(float)
SECONDS = st.integers(0, 50).map(float)
PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def residents(draw: st.DrawFn) -> list[Resident]:
    """Servers of a host, of all kinds."""
    return [
        Resident(
            f"s{number}",
            memory_mb=memory_mb,
            asleep_mb=draw(st.sampled_from([None, 0.0, memory_mb / 3, memory_mb])),
            pinned=kind == "pinned",
            busy=kind == "busy",
            last_use=draw(st.integers(0, 9)),
            next_use=draw(st.sampled_from([math.inf, 1.0, 2.0, 3.0])),
            reuse_probability=draw(st.sampled_from([0.0, 0.1, 0.3, 0.9])),
            load_s=draw(SECONDS),
            sleep_s=draw(SECONDS) / 10,
            wake_s=draw(SECONDS) / 10,
        )
        for number, (memory_mb, kind) in enumerate(
            draw(st.lists(st.tuples(SIZES, st.sampled_from(["idle", "idle", "busy", "pinned"])), max_size=5))
        )
    ]


def idle(server_id: str, memory_mb: float, **known: float | None) -> Resident:
    return Resident(server_id, memory_mb, **known)  # type: ignore[arg-type]


def evicted(policy: str, held: Sequence[Resident], needed_mb: float, host_mb: float) -> dict[str, Action]:
    room = make_room("new", needed_mb, held, host_mb, policy_named(policy))

    assert isinstance(room, Room)
    return {eviction.server_id: eviction.action for eviction in room.evictions}


@pytest.mark.parametrize("policy", POLICIES)
@PROPERTY
@given(held=residents(), needed_mb=SIZES, spare_mb=SIZES)
def test_memory_is_never_exceeded_and_nobody_pinned_or_busy_goes(
    policy: str, held: list[Resident], needed_mb: float, spare_mb: float
) -> None:
    host_mb = math.fsum(resident.memory_mb for resident in held) + spare_mb
    room = make_room("new", needed_mb, held, host_mb, POLICIES[policy])
    kept = {resident.id: resident for resident in held}
    fixed = [resident for resident in held if resident.pinned or resident.busy]

    if isinstance(room, NoRoom):
        assert math.fsum(resident.memory_mb for resident in fixed) + needed_mb > host_mb
        return
    for eviction in room.evictions:
        gone = kept.pop(eviction.server_id)
        assert gone not in fixed
        if eviction.action is Action.SLEEP:
            assert gone.asleep_mb is not None
            kept[gone.id] = replace(gone, memory_mb=gone.asleep_mb)
        left = kept[gone.id].memory_mb if gone.id in kept else 0.0
        assert eviction.freed_mb == pytest.approx(gone.memory_mb - left)
    assert math.fsum(resident.memory_mb for resident in kept.values()) + needed_mb <= host_mb + 1e-5


@pytest.mark.parametrize("policy", POLICIES)
@PROPERTY
@given(held=residents(), needed_mb=SIZES, host_mb=HOSTS)
def test_no_eviction_is_needless(policy: str, held: list[Resident], needed_mb: float, host_mb: float) -> None:
    """Whichever of them is left out, it does not fit any more."""
    room = make_room("new", needed_mb, held, host_mb, POLICIES[policy])
    evictions = room.evictions if isinstance(room, Room) else ()
    total = math.fsum(resident.memory_mb for resident in held) + needed_mb

    for left_out in evictions:
        freed = math.fsum(eviction.freed_mb for eviction in evictions if eviction is not left_out)
        assert total - freed > host_mb or left_out.freed_mb <= 1e-5


@PROPERTY
@given(held=residents(), needed_mb=SIZES, host_mb=HOSTS)
def test_cost_loses_as_little_as_any_choice_could(held: list[Resident], needed_mb: float, host_mb: float) -> None:
    """Against every way to stop, put to sleep or keep each server: of what the plan names as little as can be."""
    room = make_room("new", needed_mb, held, host_mb, POLICIES["cost"])
    if isinstance(room, NoRoom):
        return
    known = {resident.id: resident for resident in held}

    def loss(server: Resident, action: Action | None) -> float:
        planned = math.isfinite(server.next_use)
        probability, uses_until = (1.0, 1.0 + server.next_use) if planned else (server.reuse_probability, 1.0)
        match action:
            case Action.STOP:
                return probability * server.load_s / uses_until
            case Action.SLEEP:
                return (server.sleep_s + probability * server.wake_s) / uses_until
        return 0.0

    def goes(pairs: Iterable[tuple[Resident, Action | None]], *, planned: bool) -> list[tuple[Resident, Action]]:
        return [(server, action) for server, action in pairs if action is not None and math.isfinite(server.next_use) is planned]

    def losses(pairs: Sequence[tuple[Resident, Action | None]]) -> tuple[bool, float, float]:
        planned, others = goes(pairs, planned=True), goes(pairs, planned=False)
        return bool(planned), math.fsum(loss(*pair) for pair in planned), math.fsum(loss(*pair) for pair in others)

    def freed(server: Resident, action: Action | None) -> float:
        return {None: 0.0, Action.STOP: server.memory_mb, Action.SLEEP: server.frees_asleep_mb}[action]

    free = [resident for resident in held if not resident.pinned and not resident.busy]
    short = math.fsum(resident.memory_mb for resident in held) + needed_mb - host_mb
    choices = itertools.product((None, Action.STOP, Action.SLEEP), repeat=len(free))
    best = min(
        losses(list(zip(free, choice, strict=True)))
        for choice in choices
        if math.fsum(freed(*pair) for pair in zip(free, choice, strict=True)) >= short - 1e-6
    )
    found = losses([(known[eviction.server_id], eviction.action) for eviction in room.evictions])

    assert found[0] == best[0]
    assert found[1] <= best[1] + 1e-6
    assert found[0] or found[2] <= best[2] + 1e-6


def test_lru_takes_what_was_unused_longest() -> None:
    held = [idle("a", 4, last_use=3), idle("b", 4, last_use=1), idle("c", 4, last_use=2)]

    assert list(evicted("lru", held, 4, 12)) == ["b"]
    assert list(evicted("lru", held, 8, 12)) == ["b", "c"]


def test_belady_takes_what_is_needed_last_or_never() -> None:
    plan = next_uses(["a", "c", "a", "b"])
    held = [idle(name, 4, last_use=n, next_use=plan.get(name, math.inf)) for n, name in enumerate("abcd")]

    assert list(evicted("belady", held, 4, 16)) == ["d"]
    assert list(evicted("belady", held, 8, 16)) == ["d", "b"]


def test_belady_without_a_plan_is_lru() -> None:
    held = [idle("a", 4, last_use=3), idle("b", 4, last_use=1)]

    assert list(evicted("belady", held, 4, 8)) == ["b"]


def test_cost_keeps_what_is_slow_to_load_and_likely_to_be_needed() -> None:
    held = [
        idle("slow", 4, load_s=100, reuse_probability=0.3),
        idle("likely", 4, load_s=10, reuse_probability=0.6),
        idle("rare", 4, load_s=10, reuse_probability=0.1),
    ]

    assert list(evicted("cost", held, 4, 12)) == ["rare"]


def test_cost_weighs_a_large_one_against_several_small_ones() -> None:
    """Loss for the memory that is needed, not loss a server: the two small ones lose less together."""
    large = idle("large", 8, load_s=30, reuse_probability=0.4)
    small = [idle(name, 4, load_s=10, reuse_probability=0.3) for name in "ab"]

    assert set(evicted("cost", [large, *small], 8, 16)) == {"a", "b"}
    assert set(evicted("cost", [replace(large, load_s=10), *small], 8, 16)) == {"large"}


def test_what_the_plan_names_is_sure_to_be_needed() -> None:
    held = [idle("planned", 4, load_s=10, next_use=7), idle("likely", 4, load_s=10, reuse_probability=0.9)]

    assert list(evicted("cost", held, 4, 8)) == ["likely"]


def test_what_a_bucket_has_used_a_lot_goes_before_what_the_plan_needs_next() -> None:
    """Its uses were the plan's, and the plan is through with it."""
    held = [idle("over", 4, load_s=12, reuse_probability=1.0), idle("next", 4, load_s=9, next_use=1)]

    assert list(evicted("cost", held, 4, 8)) == ["over"]
    assert list(evicted("belady", held, 4, 8)) == ["over"]


def test_under_cost_what_the_plan_names_goes_when_the_others_are_not_enough_and_only_as_much_of_it() -> None:
    held = [idle("free", 2, load_s=50, reuse_probability=0.9), *(idle(name, 4, load_s=9, next_use=n) for n, name in enumerate("abc"))]

    assert set(evicted("cost", held, 6, 14)) == {"c", "free"}
    assert set(evicted("cost", held, 4, 14)) == {"c"}, "it has to go and is enough"


def test_under_cost_of_equal_planned_ones_the_one_that_is_needed_last_goes_and_a_slow_one_is_worth_more_uses() -> None:
    held = [idle("soon", 4, load_s=10, next_use=0), idle("late", 4, load_s=10, next_use=9)]

    assert list(evicted("cost", held, 4, 8)) == ["late"]
    assert list(evicted("cost", [held[0], replace(held[1], load_s=500)], 4, 8)) == ["soon"]


@pytest.mark.parametrize("policy", ["lru", "belady"])
def test_a_server_sleeps_where_that_is_enough(policy: str) -> None:
    held = [idle("a", 8, asleep_mb=1, last_use=1), idle("b", 8, last_use=2)]

    assert evicted(policy, held, 7, 16) == {"a": Action.SLEEP}
    assert evicted(policy, held, 8, 16) == {"a": Action.STOP}


def test_the_one_worth_most_sleeps_when_not_all_can() -> None:
    held = [idle("a", 8, asleep_mb=2, last_use=1), idle("b", 8, asleep_mb=2, last_use=2)]

    assert evicted("lru", held, 14, 16) == {"a": Action.STOP, "b": Action.SLEEP}


def test_a_small_one_that_does_not_help_stays() -> None:
    """It was unused longest, but the next has to go anyway and is enough."""
    held = [idle("small", 1, last_use=1), idle("large", 8, last_use=2)]

    assert list(evicted("lru", held, 8, 9)) == ["large"]


def test_cost_sleeps_when_waking_is_cheaper_than_loading() -> None:
    held = [idle("a", 8, asleep_mb=1, load_s=30, sleep_s=1, wake_s=1, reuse_probability=0.5)]

    assert evicted("cost", held, 4, 8) == {"a": Action.SLEEP}
    assert evicted("cost", [replace(held[0], reuse_probability=0.01)], 4, 8) == {"a": Action.STOP}


def test_what_a_sleeper_holds_is_its_own_when_it_wakes() -> None:
    assert make_room("a", 8, [idle("a", 1), idle("b", 4)], 12, POLICIES["lru"]) == Room()


def test_nothing_goes_when_there_is_room() -> None:
    assert make_room("new", 4, [idle("a", 4), idle("b", 4)], 12, POLICIES["lru"]) == Room()


def test_no_room_says_how_much_is_needed_and_who_is_in_the_way() -> None:
    held = [Resident("agg", 10, pinned=True), Resident("math", 6, busy=True), Resident("code", 2)]
    room = make_room("law", 12, held, 24, POLICIES["lru"])

    assert isinstance(room, NoRoom)
    assert not room.for_good
    assert room.message == (
        "server 'law' needs 12 MB and the host has 24 MB; pinned servers hold 10 MB ('agg') and busy servers hold 6 MB ('math')"
    )


def test_what_can_never_fit_is_told_from_what_has_to_wait() -> None:
    room = make_room("law", 16, [Resident("agg", 10, pinned=True)], 24, POLICIES["lru"])

    assert isinstance(room, NoRoom)
    assert room.for_good
    assert "it can never fit" in room.message


def test_an_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(InvalidRequest, match=r"'belady'.* Known are lru, belady, cost"):
        policy_named("bellady")


@pytest.mark.parametrize(
    "wrong", [{"memory_mb": 0}, {"memory_mb": math.nan}, {"memory_mb": 8, "asleep_mb": 9}, {"memory_mb": 8, "load_s": -1}]
)
def test_a_server_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match="server 'a'"):
        ServerSpec("a", **wrong)


def test_many_servers_are_chosen_among_quickly_and_well_enough() -> None:
    """With more partial choices than are kept, what is chosen still frees enough."""
    held = [
        idle(f"s{n}", 1000 + 37.7 * n, asleep_mb=100 + n, load_s=10 + n % 17, sleep_s=0.5, wake_s=n % 5, reuse_probability=1 / (n + 2))
        for n in range(60)
    ]
    total = sum(resident.memory_mb for resident in held)
    room = make_room("new", total / 2, held, total, POLICIES["cost"])

    assert isinstance(room, Room)
    assert sum(eviction.freed_mb for eviction in room.evictions) >= total / 2 - 1e-5
    assert all(isinstance(eviction, Eviction) for eviction in room.evictions)
