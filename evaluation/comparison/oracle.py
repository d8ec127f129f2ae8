"""How far a way stays behind the oracle, and where (Duo-LLM's oracle-gap report: the cheapest right expert against the routed one)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.comparison.arms import Arm, Measured
from evaluation.comparison.metrics import cheapest_best, mean

_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class OracleGap:
    """One way against the oracle. The first three shares sum to 1."""

    name: str
    as_good: float
    """Share of questions where no expert would have scored more, and somebody scored."""
    missed: float
    """Share where another expert would have scored more: what better routing could still win."""
    hopeless: float
    """Share where nobody scored: what only better experts could win."""
    overpaid: float
    """Share where a cheaper expert would have scored as much."""
    regret: float
    """Mean score lost to the oracle."""
    cost_regret: float
    """Mean cost above the oracle's, over the questions that it got as right; NaN without costs."""


def oracle_gap(arm: Arm, measured: Measured) -> OracleGap:
    """*arm*'s, on the questions where its own score and somebody's are known."""
    oracle = cheapest_best(measured.scores, measured.costs)
    known = np.isfinite(arm.scores) & (oracle >= 0)
    columns = np.maximum(oracle, 0)
    best = measured.scores_of(columns)
    lost = np.maximum(best - arm.scores, 0.0)[known]
    best = best[known]
    if not len(lost):
        return OracleGap(arm.name, *(float("nan"),) * 6)
    is_hopeless, is_missed = best <= _EPSILON, lost > _EPSILON
    overpaid, cost_regret = float("nan"), float("nan")
    oracle_costs = measured.costs_of(columns)
    if oracle_costs is not None and arm.costs is not None:
        above = (arm.costs - oracle_costs)[known]
        as_good = ~is_hopeless & ~is_missed & np.isfinite(above)
        overpaid = float((as_good & (above > _EPSILON)).mean())
        cost_regret = mean(above[as_good])
    return OracleGap(
        arm.name,
        as_good=float((~is_hopeless & ~is_missed).mean()),
        missed=float((is_missed & ~is_hopeless).mean()),
        hopeless=float(is_hopeless.mean()),
        overpaid=overpaid,
        regret=float(lost.mean()),
        cost_regret=cost_regret,
    )
