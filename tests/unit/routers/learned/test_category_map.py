"""The category map: the optimum, as enumeration finds it, and the smallest of what is equally good."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from domain.errors import InvalidRequest
from routers.learned.base import Floats
from routers.learned.category_map import CategoryMap, Sizes, best_overall, solve

EXPERTS = ("small", "medium", "large", "adapter", "huge", "tiny")
CATEGORIES = ("algebra", "birds", "chess", "dance")


def enumerated(scores: Floats, shares: Floats, generalist: str, sizes: Sizes, budget: float) -> tuple[float, float]:
    """The best reachable score, and the least that reaches it takes."""
    found = []
    for size in range(1, len(EXPERTS) + 1):
        for kept in itertools.combinations(range(len(EXPERTS)), size):
            names = [EXPERTS[n] for n in kept]
            servers = {sizes.server(name) for name in names}
            taken = sum(max(sizes.of[name] for name in EXPERTS if sizes.server(name) == server) for server in servers)
            if generalist in names and taken <= budget + 1e-9:
                found.append((float((shares * scores[:, kept].max(axis=1)).sum()), taken))
    best = max(value for value, _ in found)
    return best, min(taken for value, taken in found if value >= best - 1e-6)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("shared", [False, True], ids=["own servers", "a shared server"])
def test_it_is_what_enumeration_finds(seed: int, shared: bool) -> None:
    rng = np.random.default_rng(seed)
    # Few levels: many sets are equally good, and the smallest has to be found.
    scores = rng.choice([0.2, 0.5, 0.8, 0.9], size=(len(CATEGORIES), len(EXPERTS)))
    shares = rng.dirichlet(np.ones(len(CATEGORIES)))
    of = {name: float(rng.choice([0.001, 1.0, 7.0, 9.0, 13.0, 70.0])) for name in EXPERTS}
    sizes = Sizes(of, server_of={"adapter": "medium", "medium": "medium"} if shared else None)
    generalist = EXPERTS[int(rng.integers(len(EXPERTS)))]
    budget = max(of[name] for name in EXPERTS if sizes.server(name) == sizes.server(generalist)) + float(rng.choice([0.0, 8.0, 20.0, 75.0]))
    solved = solve(CATEGORIES, EXPERTS, scores, shares, generalist=generalist, sizes=sizes, budget=budget)
    value, taken = enumerated(scores, shares, generalist, sizes, budget)

    assert solved.expected_score == pytest.approx(value, abs=2e-6)
    assert solved.total == pytest.approx(taken)
    assert generalist in solved.kept


def solve_small(scores: list[list[float]], of: dict[str, float], budget: float | None = None, generalist: str = "large") -> CategoryMap:
    names = ("small", "large")
    return solve(("a", "b"), names, np.array(scores), np.array([0.75, 0.25]), generalist=generalist, sizes=Sizes(of), budget=budget)


def test_without_a_budget_everybody_serves_what_it_is_best_at() -> None:
    found = solve_small([[0.9, 0.5], [0.2, 0.8]], {"small": 1.0, "large": 9.0})

    assert found.expert_of == {"a": "small", "b": "large"}
    assert found.average_active == pytest.approx(0.75 * 1 + 0.25 * 9)
    assert found.expected_score == pytest.approx(0.75 * 0.9 + 0.25 * 0.8)
    assert found.total == 10.0


def test_of_equals_the_smallest_serves() -> None:
    found = solve_small([[0.9, 0.9], [0.8, 0.8]], {"small": 1.0, "large": 9.0}, generalist="small")

    assert found.kept == ("small",)
    assert found.average_active == 1.0


def test_sizes_are_not_needed_without_a_budget() -> None:
    found = solve_small([[0.9, 0.5], [0.2, 0.8]], {})

    assert found.expert_of == {"a": "small", "b": "large"}
    assert found.average_active is None
    assert found.total is None


def test_a_budget_needs_every_size() -> None:
    with pytest.raises(InvalidRequest, match=r"parameters_b is missing for small; set it on the card"):
        solve_small([[0.9, 0.5], [0.2, 0.8]], {"large": 9.0}, budget=10)


def test_a_generalist_above_the_budget_is_told() -> None:
    with pytest.raises(InvalidRequest, match="the generalist 'large' takes 9 b, more than the budget of 5"):
        solve_small([[0.9, 0.5], [0.2, 0.8]], {"small": 1.0, "large": 9.0}, budget=5)


def test_the_generalist_is_the_best_that_fits() -> None:
    sizes = Sizes({"small": 1.0, "large": 9.0})

    assert best_overall(("small", "large"), np.array([0.5, 0.8]), sizes, None) == "large"
    assert best_overall(("small", "large"), np.array([0.5, 0.8]), sizes, 4.0) == "small"
    assert best_overall(("large", "small"), np.array([0.8, 0.8]), sizes, None) == "small"
    with pytest.raises(InvalidRequest, match=r"no expert fits a budget of 0.5 b; the smallest, 'small', takes 1"):
        best_overall(("small", "large"), np.array([0.5, 0.8]), sizes, 0.5)


def test_forty_experts_and_thirty_categories_are_solved_within_seconds() -> None:
    rng = np.random.default_rng(0)
    experts = tuple(f"e{n}" for n in range(40))
    sizes = Sizes({name: float(rng.uniform(1, 70)) for name in experts})
    found = solve(
        tuple(f"c{n}" for n in range(30)),
        experts,
        rng.random((30, 40)),
        rng.dirichlet(np.ones(30)),
        generalist=min(experts, key=lambda name: sizes.of[name]),
        sizes=sizes,
        budget=100.0,
    )

    assert found.total is not None
    assert found.total <= 100.0 + 1e-6
