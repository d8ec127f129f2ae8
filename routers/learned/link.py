"""From an algorithm's own measure of fit (a cosine, a norm, an association) to an expected score. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from routers.learned.base import Floats

_MIN_SLOPE = 0.1
"""Slope at least, per standard deviation of what is mapped: a link never turns the order round, nor makes all one."""
_MAX_CELLS = 50_000
"""Pairs of question and expert that a link is fitted on."""
_ROUNDS = 25


@dataclass(frozen=True, slots=True)
class Link:
    """``1 / (1 + exp(-(offset + slope · (fit - centre) / spread)))``, one for all experts: who fits best scores highest."""

    slope: float = 1.0
    offset: float = 0.0
    centre: float = 0.0
    spread: float = 1.0

    def __call__(self, fits: Floats, base: Floats | float = 0.0) -> Floats:
        """Scores in (0, 1) of *fits*; *base* is added to the offset, in logits."""
        raw = base + self.offset + self.slope * (fits - self.centre) / self.spread
        scores: Floats = 1 / (1 + np.exp(-np.clip(raw, -30, 30)))
        return scores

    @classmethod
    def fitted(cls, fits: Floats, scores: Floats, *, base: Floats | float = 0.0, seed: int = 0) -> Link:
        """Maximum likelihood (logistic regression on one number, Platt's scaling) over the cells that were measured.

        *fits*, *scores* and *base* have one shape, or one that *scores* is broadcast from; NaN in *scores* is not measured.
        """
        measured = np.flatnonzero(~np.isnan(scores))
        if len(measured) > _MAX_CELLS:
            measured = np.sort(np.random.default_rng(seed).choice(measured, _MAX_CELLS, replace=False))
        if not len(measured):
            return cls()
        x = np.asarray(fits, np.float64).ravel()[measured]
        y = np.asarray(scores, np.float64).ravel()[measured]
        known = np.broadcast_to(base, scores.shape).ravel()[measured]
        centre, spread = float(x.mean()), float(x.std()) or 1.0
        design = np.stack([(x - centre) / spread, np.ones_like(x)], axis=1)
        found = np.array([1.0, 0.0])
        for _ in range(_ROUNDS):
            mean = 1 / (1 + np.exp(-np.clip(known + design @ found, -30, 30)))
            # A little of a ridge: where one number tells right from wrong, the likelihood has no maximum.
            gradient = design.T @ (y - mean) - 1e-2 * found
            curvature = (design * np.maximum(mean * (1 - mean), 1e-9)[:, None]).T @ design + 1e-2 * np.eye(2)
            step = np.linalg.solve(curvature, gradient)
            found = np.clip(found + step, -20, 20)
            if np.abs(step).max() < 1e-8:
                break
        return cls(slope=max(_MIN_SLOPE, float(found[0])), offset=float(found[1]), centre=centre, spread=spread)


def logit(means: Floats) -> Floats:
    """Log odds of *means*, which are kept off 0 and 1: no mean is so sure that a query could not change it."""
    inside = np.clip(means, 0.01, 0.99)
    odds: Floats = np.log(inside / (1 - inside))
    return odds
