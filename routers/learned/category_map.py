"""Which experts to keep, and which of them serves which category, at most at a budget: solved exactly. Pure.

The second of the two steps of Composition of Experts (arXiv 2412.01868): a table that is made anew when experts change, while the
classifier that finds a query's category stays. With n the share of questions, s the score of an expert on a category, P what a server
takes:

    maximise    Σ n[c] · s[c, e] · x[c, e]
    subject to  Σ_e x[c, e] = 1,   x[c, e] ≤ y[e],   y[e] ≤ u[server of e],   Σ P[v] · u[v] ≤ B,   y[generalist] = 1

with y and u binary; x then is as well. Of equally good sets the one that takes least is kept, of equally good experts for a category
the smallest serves it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domain.errors import InvalidRequest
from domain.quoting import quoted, shortened
from routers.learned.base import Floats

_TIE = 1e-6
"""Scores closer than this are the same: what the solver keeps of a constraint."""
_TIME_LIMIT_S = 30.0
"""Of one solution; 100 experts and 50 categories take a second."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What experts take, in one unit: billions of parameters, or MB."""

    of: Mapping[str, float]
    """Expert id to size."""
    unit: str = "b"
    server_of: Mapping[str, str] | None = None
    """Expert id to the server that it shares with others (an adapter to that of its base): kept once, at the size of its largest.
    An expert that is missing has one of its own."""

    def server(self, expert_id: str) -> str:
        return (self.server_of or {}).get(expert_id, expert_id)


@dataclass(frozen=True, slots=True)
class CategoryMap:
    """Who serves what."""

    expert_of: Mapping[str, str]
    """Category to expert."""
    generalist: str
    """Who answers what belongs to no category clearly. Always kept."""
    kept: tuple[str, ...]
    """Experts that serve a category, and the generalist; in the order of the pool."""
    expected_score: float
    """Mean score over the categories, by their shares, when each question's category is known."""
    average_active: float | None
    """Size of the expert that answers, averaged by the categories' shares; None where a size is unknown."""
    total: float | None
    """What all servers of ``kept`` take together; None where a size is unknown."""
    budget: float | None


def best_overall(expert_ids: Sequence[str], means: Floats, sizes: Sizes, budget: float | None) -> str:
    """The best by *means* (E,) among those that fit *budget*, the smallest of equals: a generalist where none is named."""
    fitting = [n for n, name in enumerate(expert_ids) if budget is None or _server_size(sizes, name, expert_ids) <= budget]
    if not fitting:
        smallest = min(expert_ids, key=lambda name: _server_size(sizes, name, expert_ids))
        raise InvalidRequest(
            f"no expert fits a budget of {budget:g} {sizes.unit}; the smallest, {quoted(smallest)}, takes"
            f" {_server_size(sizes, smallest, expert_ids):g}"
        )
    best = max(means[n] for n in fitting)
    return min((expert_ids[n] for n in fitting if means[n] >= best - _TIE), key=lambda name: sizes.of.get(name, np.inf))


def solve(
    categories: Sequence[str],
    expert_ids: Sequence[str],
    scores: Floats,
    shares: Floats,
    *,
    generalist: str,
    sizes: Sizes,
    budget: float | None = None,
) -> CategoryMap:
    """The best map of *scores* (C, E) in [0, 1] at the categories' *shares* (C,) of the questions.

    Raises ``InvalidRequest`` when a budget is given and a size is missing, or when the generalist alone is above it.
    """
    if budget is None:
        allowed = list(range(len(expert_ids)))
    else:
        _check_sizes(expert_ids, sizes)
        if _server_size(sizes, generalist, expert_ids) > budget:
            raise InvalidRequest(
                f"the generalist {quoted(generalist)} takes {_server_size(sizes, generalist, expert_ids):g} {sizes.unit}, more than the"
                f" budget of {budget:g}: raise the budget or name a smaller generalist"
            )
        allowed = _kept(expert_ids, scores, shares, generalist=generalist, sizes=sizes, budget=budget)
    expert_of = {category: expert_ids[_smallest_best(scores[row], allowed, expert_ids, sizes)] for row, category in enumerate(categories)}
    serving = {*expert_of.values(), generalist}
    kept = tuple(name for name in expert_ids if name in serving)
    place = {name: n for n, name in enumerate(expert_ids)}
    weights = _normalised(shares)
    known = all(name in sizes.of for name in kept)
    servers = {sizes.server(name) for name in kept}
    return CategoryMap(
        expert_of=expert_of,
        generalist=generalist,
        kept=kept,
        expected_score=float(sum(weights[row] * scores[row, place[name]] for row, name in enumerate(expert_of.values()))),
        average_active=float(sum(weights[row] * sizes.of[name] for row, name in enumerate(expert_of.values()))) if known else None,
        total=float(sum(_size_of_server(sizes, server, expert_ids) for server in servers)) if known else None,
        budget=budget,
    )


def _kept(expert_ids: Sequence[str], scores: Floats, shares: Floats, *, generalist: str, sizes: Sizes, budget: float) -> list[int]:
    """Which experts may serve: places of the best set within the budget, of equals the one that takes least."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array, vstack

    num_categories, num_experts = scores.shape
    servers = sorted({sizes.server(name) for name in expert_ids})
    taken = np.array([_size_of_server(sizes, server, expert_ids) for server in servers])
    cells = num_categories * num_experts
    first_server = cells + num_experts
    width = first_server + len(servers)
    each_cell = np.arange(cells)
    own_server = np.array([servers.index(sizes.server(name)) for name in expert_ids])

    def matrix(entries: list[tuple[np.typing.NDArray[np.int64], np.typing.NDArray[np.int64], float]], rows: int) -> object:
        row, column = (np.concatenate([entry[part] for entry in entries]) for part in (0, 1))
        return coo_array((np.concatenate([np.full(len(entry[0]), entry[2]) for entry in entries]), (row, column)), shape=(rows, width))

    every_expert = np.arange(num_experts)
    served_once = matrix([(each_cell // num_experts, each_cell, 1.0)], num_categories)
    by_the_kept = matrix([(each_cell, each_cell, 1.0), (each_cell, cells + each_cell % num_experts, -1.0)], cells)
    on_a_server = matrix([(every_expert, cells + every_expert, 1.0), (every_expert, first_server + own_server, -1.0)], num_experts)
    # In shares of the budget: sizes from a thousandth of a billion to hundreds keep the solver's tolerance.
    cost = np.zeros(width)
    cost[first_server:] = taken / max(budget, 1e-12)
    quality = np.zeros(width)
    quality[:cells] = (_normalised(shares)[:, None] * scores).ravel()
    lower, upper = np.zeros(width), np.ones(width)
    lower[cells + list(expert_ids).index(generalist)] = 1.0
    integral = np.r_[np.zeros(cells), np.ones(width - cells)]
    limits = [
        LinearConstraint(served_once, 1.0, 1.0),
        LinearConstraint(vstack([by_the_kept, on_a_server]), -np.inf, 0.0),
        LinearConstraint(cost[None], -np.inf, 1.0 + 1e-9),
    ]

    def solved(objective: Floats, more: list[LinearConstraint]) -> Floats:
        found = milp(
            objective,
            integrality=integral,
            bounds=Bounds(lower, upper),
            constraints=[*limits, *more],
            options={"mip_rel_gap": 0.0, "time_limit": _TIME_LIMIT_S},
        )
        if found.x is None:
            raise InvalidRequest(f"no map was found within {_TIME_LIMIT_S:g} s ({found.message}): enable fewer experts or categories")
        solution: Floats = found.x
        return solution

    best = float(quality @ solved(-quality, []))
    solution = solved(cost, [LinearConstraint(quality[None], best - _TIE, np.inf)])
    return [n for n in range(num_experts) if solution[cells + n] > 0.5]


def _smallest_best(scores: Floats, allowed: Sequence[int], expert_ids: Sequence[str], sizes: Sizes) -> int:
    best = max(float(scores[n]) for n in allowed)
    return min((n for n in allowed if scores[n] >= best - _TIE), key=lambda n: sizes.of.get(expert_ids[n], np.inf))


def _server_size(sizes: Sizes, expert_id: str, expert_ids: Sequence[str]) -> float:
    return _size_of_server(sizes, sizes.server(expert_id), expert_ids)


def _size_of_server(sizes: Sizes, server: str, expert_ids: Sequence[str]) -> float:
    return max((sizes.of.get(name, np.inf) for name in expert_ids if sizes.server(name) == server), default=np.inf)


def _check_sizes(expert_ids: Sequence[str], sizes: Sizes) -> None:
    missing = [name for name in expert_ids if name not in sizes.of]
    if missing:
        field = "memory_mb" if sizes.unit == "MB" else "parameters_b"
        raise InvalidRequest(
            f"a budget needs the size of every expert: {field} is missing for {shortened(', '.join(missing), 200)}; set it on the card"
        )


def _normalised(shares: Floats) -> Floats:
    total = float(shares.sum())
    return shares / total if total else np.full(len(shares), 1 / max(1, len(shares)))
