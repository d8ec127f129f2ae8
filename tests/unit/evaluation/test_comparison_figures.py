"""The figures of a comparison, against examples done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.comparison.arms import Arm, CurvePoint, Measured
from evaluation.comparison.coverage import coverage_of
from evaluation.comparison.metrics import (
    bootstrap_means,
    cheapest_best,
    cheapest_reaching,
    curve_area,
    gap_closed,
    hull,
    interval,
    lambda_grid,
    mean,
    penalised_choice,
)
from evaluation.comparison.oracle import oracle_gap
from evaluation.comparison.summary import BEST_SINGLE, category_confusion, group_tables, oracle_arm, random_arm, rows_of, single_arms

NAN = float("nan")
SCORES = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
"""Four questions: who scores, a, b or c."""
COSTS = np.tile([3.0, 2.0, 1.0], (4, 1))


def measured() -> Measured:
    return Measured(
        ("a", "b", "c"), SCORES, COSTS, unit="USD", groups={"category": (("x",), ("x",), ("y",), ())}, parts=("1", "1", "2", "2")
    )


def test_the_share_of_the_gap() -> None:
    assert gap_closed(0.7, 0.6, 0.8) == pytest.approx(0.5)
    assert gap_closed(0.5, 0.6, 0.8) == pytest.approx(-0.5)
    assert math.isnan(gap_closed(0.6, 0.8, 0.8))


def test_the_oracle_takes_the_cheapest_of_the_best() -> None:
    assert cheapest_best(SCORES, COSTS).tolist() == [1, 1, 2, 2]
    assert cheapest_best(SCORES, None).tolist() == [0, 1, 2, 0]
    assert cheapest_best(np.array([[NAN, NAN], [NAN, 0.0]]), None).tolist() == [-1, 1]
    assert cheapest_best(np.array([[0.0, 1.0]]), np.array([[1.0, NAN]])).tolist() == [1]


def test_the_penalty_moves_the_choice_to_cheaper_experts() -> None:
    predicted, prices = np.array([[0.9, 0.8, 0.5]]), np.array([3.0, 2.0, 1.0])

    chosen = [int(penalised_choice(predicted, prices, weight)[0]) for weight in (0.0, 0.2, 0.5)]

    assert chosen == [0, 1, 2]
    assert penalised_choice(np.array([[0.5, 0.5, 0.5]]), prices, 0.0).tolist() == [2]


def test_the_grid_reaches_from_no_price_to_nothing_but_price() -> None:
    prices = np.array([0.1, 0.2, 0.9])
    grid = lambda_grid(prices)

    assert grid[0] == 0
    assert np.all(np.diff(grid) > 0)
    assert penalised_choice(np.array([[0.0, 1.0, 1.0]]), prices, float(grid[-1])).tolist() == [0]
    assert lambda_grid(np.array([0.2, 0.2])).tolist() == [0.0]


def test_the_hull_leaves_out_what_mixing_beats() -> None:
    points = [(1.0, 0.2), (2.0, 0.3), (3.0, 0.8), (4.0, 0.7), (1.0, 0.1)]

    assert hull(points) == [(1.0, 0.2), (3.0, 0.8)]


def test_the_area_is_the_mean_height_over_the_range_of_costs() -> None:
    curve = [CurvePoint(0.0, 3.0, 0.8), CurvePoint(1.0, 1.0, 0.2)]

    assert curve_area(curve, low=1.0, high=3.0) == pytest.approx(0.5)
    assert curve_area(curve, low=1.0, high=5.0) == pytest.approx((2 * 0.5 + 2 * 0.8) / 4)
    assert math.isnan(curve_area(curve, low=1.0, high=1.0))
    assert math.isnan(curve_area([], low=1.0, high=2.0))


def test_a_curve_equals_an_accuracy_at_a_point_that_was_measured() -> None:
    curve = [CurvePoint(0.0, 3.0, 0.8), CurvePoint(0.5, 2.0, 0.6), CurvePoint(1.0, 1.0, 0.2)]

    found = cheapest_reaching(curve, 0.5)

    assert found is not None
    assert found.cost == 2.0
    assert cheapest_reaching(curve, 0.9) is None


def test_bootstrap_is_seeded_and_covers() -> None:
    values = np.stack([np.repeat([0.0, 1.0], [300, 700]), np.full(1000, 0.5)], axis=1)

    one, same, other = (bootstrap_means(values, seed=seed, num_resamples=2000) for seed in (1, 1, 2))

    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    low, high = interval(one[:, 0])
    assert low == pytest.approx(0.7 - 1.96 * math.sqrt(0.21 / 1000), abs=0.003)
    assert high == pytest.approx(0.7 + 1.96 * math.sqrt(0.21 / 1000), abs=0.003)
    assert interval(one[:, 1]) == (0.5, 0.5)


def test_bootstrap_leaves_out_what_is_not_known() -> None:
    samples = bootstrap_means(np.array([[1.0], [NAN], [1.0]]), seed=0, num_resamples=200)

    assert set(samples[np.isfinite(samples)].tolist()) == {1.0}


def test_coverage_by_hand() -> None:
    """b covers two of four, c adds one; a is right only where b is."""
    found = coverage_of(("a", "b", "c"), SCORES)

    assert found.union == pytest.approx(0.75)
    assert [(e.expert_id, e.accuracy, e.greedy_coverage, e.marginal_gain, e.redundant) for e in found.experts] == [
        ("b", 0.5, 0.5, 0.25, False),
        ("c", 0.25, 0.75, 0.25, False),
        ("a", 0.25, 0.75, 0.0, True),
    ]
    assert found.recommended == ("b", "c")
    assert found.agreement[0] == (1.0, 0.25, 0.75)


def test_of_two_experts_that_cover_the_same_one_is_redundant() -> None:
    found = coverage_of(("a", "b"), np.array([[1.0, 1.0], [0.0, 0.0]]))

    assert [expert.redundant for expert in found.experts].count(True) == 1


def test_the_oracle_gap_by_hand() -> None:
    arm = measured().choice("way", np.array([0, 0, 2, 0]))

    gap = oracle_gap(arm, measured())

    assert (gap.as_good, gap.missed, gap.hopeless) == (0.5, 0.25, 0.25)
    assert gap.regret == 0.25
    assert gap.overpaid == 0.25, "question 1: b would have been right for 2 instead of 3"
    assert gap.cost_regret == pytest.approx(0.5)


def test_rows_by_hand() -> None:
    m = measured()
    curve = (CurvePoint(0.0, 2.0, 0.75), CurvePoint(1.0, 1.0, 0.5))
    router = Arm("router", "router", m.scores_of(np.array([1, 1, 2, 2])), m.costs_of(np.array([1, 1, 2, 2])), curve=curve)
    arms = [router, m.choice(BEST_SINGLE, np.ones(4, int), kind="baseline"), random_arm(m), oracle_arm(m), *single_arms(m)]

    rows = {row.name: row for row in rows_of(arms, m, seed=0, num_resamples=200)}

    assert (rows["router"].accuracy, rows["router"].gap_closed, rows["router"].regret) == (0.75, 1.0, 0.0)
    assert (rows["router"].cost, rows["router"].relative_cost) == (1.5, 0.75)
    assert rows["router"].equal_cost == 0.5, "at λ = 1 it scores what b scores, for half"
    assert rows["router"].by_part == {"1": 1.0, "2": 0.5}
    assert rows["random expert"].accuracy == pytest.approx(1 / 3)
    assert rows["random expert"].cost == 2.0
    assert rows["oracle"].accuracy == 0.75
    assert (rows[BEST_SINGLE].gap_closed, rows[BEST_SINGLE].above_interval) == (0.0, (0.0, 0.0))
    assert rows["a"].gap_closed == -1.0


def test_unknown_scores_count_in_no_figure() -> None:
    m = Measured(("a", "b"), np.array([[1.0, 0.0], [NAN, 1.0], [0.0, 0.0]]))
    arms = [m.choice(BEST_SINGLE, np.zeros(3, int)), oracle_arm(m)]

    row = rows_of(arms, m, seed=0, num_resamples=50)[0]

    assert (row.accuracy, row.num_unknown) == (0.5, 1)
    assert math.isnan(row.cost)


def test_what_an_answer_without_a_score_cost_counts_in_no_figure_either() -> None:
    m = Measured(("a", "b"), np.array([[1.0, 0.0], [NAN, 1.0], [0.0, 0.0]]), np.array([[1.0, 2.0], [900.0, 2.0], [3.0, 2.0]]))
    arms = [m.choice(BEST_SINGLE, np.zeros(3, int)), oracle_arm(m)]

    assert rows_of(arms, m, seed=0, num_resamples=50)[0].cost == 2.0


def test_accuracy_per_group() -> None:
    m = measured()

    (table,) = group_tables([m.choice("a", np.zeros(4, int)), m.choice("b", np.ones(4, int))], m)

    assert (table.groups, table.num_questions, table.ways) == (("x", "y"), (2, 1), ("a", "b"))
    assert table.accuracy == ((0.5, 1.0), (0.0, 0.0))


def test_the_confusion_of_categories() -> None:
    found = category_confusion("category", ["x", "x", "y"], ["x", "y", "y"])

    assert (found.rows, found.columns, found.counts) == (("x", "y"), ("x", "y"), ((1, 1), (0, 1)))
    assert found.accuracy == pytest.approx(2 / 3)


def test_the_mean_of_nothing() -> None:
    assert math.isnan(mean(np.array([NAN])))
