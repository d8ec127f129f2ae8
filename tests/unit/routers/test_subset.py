"""The best set within limits, against looking at every set."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routers.subset import EXACT_UP_TO, Choices, Room, best_subset, memory_of, price_of, quality


def best_by_looking_at_all(choices: Choices, room: Room) -> float:
    sets = (places for size in range(room.size + 1) for places in combinations(range(len(choices)), size))
    fitting = (p for p in sets if price_of(choices, p) <= room.price + 1e-9 and memory_of(choices, p) <= room.memory_mb + 1e-9)
    return max(quality(choices.scores[place] for place in places) for places in fitting)


@st.composite
def problems(draw: st.DrawFn, max_experts: int = 7) -> tuple[Choices, Room]:
    num = draw(st.integers(1, max_experts))
    each = {"min_size": num, "max_size": num}
    server_mb = {"s": draw(st.floats(1, 50)), "t": draw(st.floats(1, 50))}
    servers = draw(st.lists(st.sampled_from([None, "s", "t"]), **each))
    choices = Choices(
        scores=draw(st.lists(st.floats(0, 1), **each)),
        prices=draw(st.lists(st.floats(0, 10), **each)),
        servers=servers,
        memory_mb=[server_mb[server] if server else 0.0 for server in servers],
    )
    largest = max(choices.prices), max(choices.memory_mb)  # everybody fits alone
    return choices, Room(largest[0] + draw(st.floats(0, 15)), largest[1] + draw(st.floats(0, 60)), draw(st.integers(1, 4)))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_the_set_is_as_good_as_any_that_fits(problem: tuple[Choices, Room]) -> None:
    choices, room = problem
    found = best_subset(choices, room)

    assert len(found) <= room.size
    assert price_of(choices, found) <= room.price + 1e-6
    assert memory_of(choices, found) <= room.memory_mb + 1e-6
    assert quality(choices.scores[place] for place in found) == pytest.approx(best_by_looking_at_all(choices, room), abs=1e-8)


def test_two_that_fit_together_beat_the_best_one_that_fills_the_budget() -> None:
    choices = Choices([0.8, 0.7, 0.6], [1.0, 0.5, 0.5], [None] * 3, [0.0] * 3)

    assert best_subset(choices, Room(price=1.0, size=3)) == (1, 2)
    assert best_subset(choices, Room(price=2.0, size=3)) == (0, 1, 2)
    assert best_subset(choices, Room(price=1.0, size=1)) == (0,)


def test_experts_on_one_server_load_it_once() -> None:
    choices = Choices([0.7, 0.6, 0.65], [0.0] * 3, ["s", "s", "t"], [80.0, 80.0, 80.0])

    assert best_subset(choices, Room(memory_mb=100.0, size=3)) == (0, 1)


def test_of_equally_good_experts_the_cheaper_is_taken() -> None:
    choices = Choices([0.5, 0.5, 0.5], [3.0, 1.0, 2.0], [None] * 3, [0.0] * 3)

    assert best_subset(choices, Room(size=2)) == (1, 2)


def test_a_perfect_expert_does_not_make_the_others_worthless() -> None:
    choices = Choices([1.0, 1.0, 0.4], [1.0, 1.0, 0.1], [None] * 3, [0.0] * 3)

    assert best_subset(choices, Room(price=1.2, size=3)) == (0, 2)


def test_nobody_with_a_score_is_an_empty_set() -> None:
    assert best_subset(Choices([0.0, 0.0], [1.0, 1.0], [None, None], [0.0, 0.0]), Room(size=2)) == ()


def test_large_registries_get_a_set_that_fits_and_is_nearly_the_best() -> None:
    """Checked against the exact answer over the part of the registry that can be in it: price and memory bind."""
    shortfalls = []
    for seed in range(20):
        rng = Random(seed)
        num = 60
        servers = [rng.choice([None, "s", "t", "u"]) for _ in range(num)]
        memory = {"s": 30.0, "t": 40.0, "u": 50.0}
        choices = Choices(
            scores=[rng.random() * 0.9 for _ in range(num)],
            prices=[rng.random() * 4 for _ in range(num)],
            servers=servers,
            memory_mb=[memory.get(server or "", 0.0) for server in servers],
        )
        room = Room(price=4.0, memory_mb=70.0, size=3)
        found = best_subset(choices, room)
        assert price_of(choices, found) <= 4.0 + 1e-6
        assert memory_of(choices, found) <= 70.0
        shortfalls.append(best_by_looking_at_all(choices, room) - quality(choices.scores[place] for place in found))

    assert num > EXACT_UP_TO
    assert max(shortfalls) < 0.005
    assert sum(shortfall > 1e-9 for shortfall in shortfalls) <= 1
