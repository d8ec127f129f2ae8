"""The figures of a comparison, from arrays. Pure; everything random is seeded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.comparison.arms import CurvePoint, Floats, Ints

NUM_RESAMPLES = 1000
"""Bootstrap samples: the ends of a 95 % interval are known to about a tenth of its width."""
_BLOCK_CELLS = 4_000_000
"""Counts drawn at a time: 32 MB."""
_NUM_LAMBDAS = 60


def mean(values: Floats) -> float:
    """Over what is known; NaN when nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def bootstrap_means(values: Floats, *, seed: int, num_resamples: int = NUM_RESAMPLES) -> Floats:
    """(B, W) means of the columns of *values* (N, W) over questions drawn with replacement, the same for every column.

    Since all columns see the same questions, differences and ratios of them have honest intervals too (Efron 1979; paired).
    """
    known = ~np.isnan(values)
    filled, weights = np.where(known, values, 0.0).astype(np.float64), known.astype(np.float64)
    num, rng = len(values), np.random.default_rng(seed)
    block = max(1, min(num_resamples, _BLOCK_CELLS // max(1, num)))
    parts = []
    for start in range(0, num_resamples, block):
        counts = rng.multinomial(num, np.full(num, 1.0 / num), size=min(block, num_resamples - start)).astype(np.float64)
        with np.errstate(invalid="ignore"):
            parts.append((counts @ filled) / (counts @ weights))
    return np.concatenate(parts)


def interval(samples: Floats) -> tuple[float, float]:
    """The middle 95 % of *samples*; NaN when none is known."""
    known = samples[np.isfinite(samples)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)


def gap_closed(accuracy: float, best_single: float, oracle: float) -> float:
    """Which share of the way from the best single expert to the oracle; negative below the former, NaN when there is no way."""
    return (accuracy - best_single) / (oracle - best_single) if oracle > best_single else float("nan")


def cheapest_best(scores: Floats, costs: Floats | None) -> Ints:
    """(N) the oracle's choice: of the experts with the highest score the cheapest (Duo-LLM's oracle); the first of equals.

    -1 where nobody was measured. A cost that is not known counts as the highest.
    """
    filled = np.where(np.isnan(scores), -1.0, scores)
    best = filled.max(axis=1)
    able = filled >= best[:, None]
    price = np.zeros_like(filled) if costs is None else np.nan_to_num(costs, nan=np.inf, posinf=np.inf)
    choice = np.where(able, price, np.inf).argmin(axis=1)
    # All able ones may cost an unknown amount: argmin of infinities is column 0, which need not be able.
    missed = ~able[np.arange(len(choice)), choice]
    choice = np.where(missed, able.argmax(axis=1), choice)
    return np.where(best < 0, -1, choice)


def lambda_grid(prices: Floats) -> Floats:
    """Weights of the price from 0 to where only the cheapest is chosen, spaced evenly in their logarithm."""
    distinct = np.unique(prices[np.isfinite(prices)])
    if len(distinct) < 2:
        return np.zeros(1)
    smallest_gap = float(np.diff(distinct).min())
    low, high = 1e-3 / float(distinct[-1]), 1.001 / max(smallest_gap, 1e-6 * float(distinct[-1]))
    return np.concatenate([np.zeros(1), np.geomspace(low, high, _NUM_LAMBDAS)])


def penalised_choice(predicted: Floats, prices: Floats, weight: float) -> Ints:
    """(N) the column with the highest ``score - weight * price``, the cheaper of equals."""
    order = np.argsort(prices, kind="stable")
    value = predicted[:, order] - weight * prices[order]
    chosen: Ints = order[value.argmax(axis=1)]
    return chosen


def hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The non-decreasing upper convex hull of (cost, accuracy): what mixing the points can reach at each cost."""
    best: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if best and (accuracy <= best[-1][1] or cost == best[-1][0]):
            continue
        while len(best) > 1 and _turns_left(best[-2], best[-1], (cost, accuracy)):
            best.pop()
        best.append((cost, accuracy))
    return best


def _turns_left(first: tuple[float, float], second: tuple[float, float], third: tuple[float, float]) -> bool:
    return (second[1] - first[1]) * (third[0] - first[0]) <= (third[1] - first[1]) * (second[0] - first[0])


def curve_area(curve: Sequence[CurvePoint], *, low: float, high: float) -> float:
    """Mean accuracy of the hull of *curve* over costs from *low* to *high*: RouterBench's AIQ (arXiv 2403.12031), in [0, 1].

    Below its first point the curve is worth nothing, above its last point it stays there. NaN without a range of costs.
    """
    if not curve or not high > low:
        return float("nan")
    points = hull([(point.cost, point.accuracy) for point in curve])
    costs, accuracies = np.array([p[0] for p in points]), np.array([p[1] for p in points])
    grid = np.unique(np.clip(np.concatenate([costs, [low, high]]), low, high))
    height = np.interp(grid, costs, accuracies)
    height[grid < costs[0] - 1e-12 * high] = 0.0
    return float(np.trapezoid(height, grid) / (high - low))


def cheapest_reaching(curve: Sequence[CurvePoint], accuracy: float) -> CurvePoint | None:
    """The cheapest point of *curve* that scores at least *accuracy*. A point that was measured, never one between two."""
    reaching = [point for point in curve if point.accuracy >= accuracy - 1e-9]
    return min(reaching, key=lambda point: (point.cost, -point.accuracy), default=None)
