"""From arms to a report's rows and tables. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evaluation.comparison.arms import Arm, Floats, Measured
from evaluation.comparison.metrics import (
    NUM_RESAMPLES,
    bootstrap_means,
    cheapest_best,
    cheapest_reaching,
    curve_area,
    gap_closed,
    interval,
    mean,
)
from evaluation.comparison.report import Confusion, GroupTable, Row

BEST_SINGLE = "best single"
RANDOM = "random expert"
ORACLE = "oracle"
_MAX_GROUPS = 200
"""Groups of one table; of more the largest are shown."""


def single_arms(measured: Measured) -> list[Arm]:
    """Every expert alone."""
    num = len(measured)
    return [measured.choice(name, np.full(num, column), kind="single") for column, name in enumerate(measured.expert_ids)]


def random_arm(measured: Measured) -> Arm:
    """An expert at random, as the exact mean over all of them: a lottery of one draw would only add noise."""
    scores = _row_means(measured.scores)
    costs = None if measured.costs is None else _row_means(measured.costs)
    latency = None if measured.latency_ms is None else _row_means(measured.latency_ms)
    return Arm(RANDOM, "baseline", scores, costs, latency_ms=latency, note="the mean over all experts")


def oracle_arm(measured: Measured) -> Arm:
    """The cheapest of the best experts, question by question: no router of single experts can score more."""
    columns = cheapest_best(measured.scores, measured.costs)
    arm = measured.choice(ORACLE, np.maximum(columns, 0), kind="baseline", note="the cheapest of the best experts")
    return replace(arm, chosen=columns)


def rows_of(arms: Sequence[Arm], measured: Measured, *, seed: int, num_resamples: int = NUM_RESAMPLES) -> tuple[Row, ...]:
    """A row per arm, in their order; ``BEST_SINGLE`` and ``ORACLE`` must be among them."""
    matrix = np.stack([arm.scores for arm in arms], axis=1)
    samples = bootstrap_means(matrix, seed=seed, num_resamples=num_resamples)
    place = {arm.name: column for column, arm in enumerate(arms)}
    single, oracle = place[BEST_SINGLE], place[ORACLE]
    single_accuracy, oracle_accuracy = mean(matrix[:, single]), mean(matrix[:, oracle])
    single_cost = _cost_of(arms[single])
    low, high = _cost_range(measured)
    with np.errstate(invalid="ignore", divide="ignore"):
        gaps = (samples - samples[:, [single]]) / (samples[:, [oracle]] - samples[:, [single]])
    parts = _parts(measured)
    rows = []
    for column, arm in enumerate(arms):
        accuracy, cost = mean(arm.scores), _cost_of(arm)
        equal = cheapest_reaching(arm.curve, single_accuracy)
        by_part = {name: mean(arm.scores[where]) for name, where in parts.items()}
        rows.append(
            Row(
                name=arm.name,
                kind=arm.kind,
                accuracy=accuracy,
                interval=interval(samples[:, column]),
                above_best_single=accuracy - single_accuracy,
                above_interval=interval(samples[:, column] - samples[:, single]),
                gap_closed=gap_closed(accuracy, single_accuracy, oracle_accuracy),
                gap_interval=interval(gaps[:, column]),
                regret=mean(matrix[:, oracle] - arm.scores),
                cost=cost,
                relative_cost=cost / single_cost if single_cost > 0 else float("nan"),
                calls=float(np.mean(arm.calls)),
                latency_ms=_mean_of(arm.latency_ms),
                num_failed=arm.num_failed,
                num_unknown=int(np.isnan(arm.scores).sum()),
                lambda_=arm.lambda_,
                area=curve_area(arm.curve, low=low, high=high),
                equal_cost=equal.cost / single_cost if equal is not None and single_cost > 0 else float("nan"),
                equal_lambda=equal.lambda_ if equal is not None else float("nan"),
                curve=arm.curve,
                by_part=by_part,
                gap_by_part={
                    name: gap_closed(by_part[name], mean(matrix[where, single]), mean(matrix[where, oracle]))
                    for name, where in parts.items()
                },
                note=arm.note,
            )
        )
    return tuple(rows)


def group_tables(arms: Sequence[Arm], measured: Measured) -> tuple[GroupTable, ...]:
    """Accuracy per category and per skill; a question with two skills counts for both."""
    tables = []
    for grouping, of_question in measured.groups.items():
        counted = Counter(name for names in of_question for name in names)
        groups = sorted(name for name, _ in counted.most_common(_MAX_GROUPS))
        members = {name: np.array([name in names for names in of_question]) for name in groups}
        tables.append(
            GroupTable(
                grouping,
                tuple(groups),
                tuple(counted[name] for name in groups),
                tuple(arm.name for arm in arms),
                tuple(tuple(mean(arm.scores[members[name]]) for arm in arms) for name in groups),
            )
        )
    return tuple(tables)


def experts_by_category(arm: Arm, measured: Measured) -> Confusion | None:
    """Who was given the questions of each category; None without categories or choices."""
    categories = measured.groups.get("category", ())
    if arm.chosen is None or not any(categories):
        return None
    pairs = Counter((names[0], int(column)) for names, column in zip(categories, arm.chosen, strict=True) if names and column >= 0)
    if not pairs:
        return None
    rows = sorted({category for category, _ in pairs})
    counts = tuple(tuple(pairs[category, column] for column in range(len(measured.expert_ids))) for category in rows)
    return Confusion(arm.name, "experts", tuple(rows), measured.expert_ids, counts)


def category_confusion(name: str, actual: Sequence[str], predicted: Sequence[str]) -> Confusion:
    """Categories as they are by categories as a router saw them."""
    pairs = Counter(zip(actual, predicted, strict=True))
    rows, columns = sorted(set(actual)), sorted({*actual, *predicted})
    return Confusion(
        name, "categories", tuple(rows), tuple(columns), tuple(tuple(pairs[row, column] for column in columns) for row in rows)
    )


def _row_means(matrix: Floats) -> Floats:
    known = ~np.isnan(matrix)
    with np.errstate(invalid="ignore"):
        means: Floats = np.where(known, matrix, 0.0).sum(axis=1) / known.sum(axis=1)
    return means


def _mean_of(values: Floats | None) -> float:
    return float("nan") if values is None else mean(values)


def _cost_of(arm: Arm) -> float:
    """Mean, over the questions whose score is known: of others it is not known either what the money bought."""
    return float("nan") if arm.costs is None else mean(np.where(np.isnan(arm.scores), np.nan, arm.costs))


def _cost_range(measured: Measured) -> tuple[float, float]:
    if measured.costs is None:
        return float("nan"), float("nan")
    means = [mean(column) for column in measured.costs.T]
    return min(means), max(means)


def _parts(measured: Measured) -> dict[str, np.typing.NDArray[np.bool_]]:
    names = np.array(measured.parts)
    return {name: names == name for name in dict.fromkeys(measured.parts)} if len(set(measured.parts)) > 1 else {}
