"""Confidence intervals for shares."""

from __future__ import annotations

import math


def wilson_interval(num_correct: int, num_answered: int, *, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of ``num_correct / num_answered``, as shares in [0, 1]; (0, 1) when nothing was answered.

    *z* 1.96 gives 95 %. Holds its level for small counts and shares near 0 and 1, where the usual ± does not
    (Wilson 1927; Brown, Cai and DasGupta 2001).
    """
    if num_answered == 0:
        return 0.0, 1.0
    share = num_correct / num_answered
    scale = 1 + z * z / num_answered
    centre = (share + z * z / (2 * num_answered)) / scale
    margin = z * math.sqrt(share * (1 - share) / num_answered + z * z / (4 * num_answered**2)) / scale
    return max(0.0, min(share, centre - margin)), min(1.0, max(share, centre + margin))
