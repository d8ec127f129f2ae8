"""How far a prediction may be trusted for a query that is unlike everything that was learnt from.

Within the ground that training questions cover a blend knows which expert is good at what; off it, its parts still say something, and
nothing that they say was ever checked. So what they say is taken by a share, and for the rest every expert is expected to do as well as
everywhere. How unlike a query is: its mean distance to the nearest training questions. Which share a distance deserves is learnt by
leaving out whole kinds of training questions: what was learnt without a kind is asked about it, and the share is the one that would have
been right there (the slope of a regression through the origin, never rising with the distance: isotonic regression). Queries that are
no farther from the training questions than nearly all of these are from each other are trusted in full, those farther away than any
that was left out not at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routers.learned.base import Floats
from routers.learned.gated import GatedRidge

Ints = npt.NDArray[np.int64]

_NEAREST = 5
_MAX_REFERENCES = 4_096
"""Training questions that a query is compared with: 4 MB, a tenth of a millisecond."""
_KNOWN_GROUND = 0.97
"""Of the training questions are no farther from their nearest ones than this quantile: trusted in full."""
_MIN_FOREIGN = 20
"""Questions of left-out kinds beyond the known ground; with fewer nothing is learnt about it, and everything is trusted."""
_MAX_DIRECTIONS = 32
"""Of the regression that is fitted without each kind; it stands for all components, and is fitted as often as there are kinds."""
_MAX_KNOTS = 16
_MIN_NORM = 1e-9


@dataclass(frozen=True)
class Familiarity:
    """Fitted."""

    references: Floats
    """(M, d) float32, rows of training questions."""
    squares: Floats
    """(M,) of their lengths."""
    distances: Floats
    """(J,) rising; empty where everything is trusted."""
    shares: Floats
    """(J,) falling, in [0, 1]: of what is predicted at each distance."""

    @classmethod
    def learnt(cls, rows: Floats, shares: Floats, directions: Floats, deviations: Floats, *, seed: int) -> Familiarity:
        """From training questions: *rows* (N, d) that are compared, *shares* (N, K) of kinds and *directions* (N, r) as the gated
        regression takes them, and *deviations* (N, E) from the question's level, all known."""
        used = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_MAX_REFERENCES])
        references = np.ascontiguousarray(rows[used], np.float32)
        squares = np.square(references).sum(axis=1)
        trusting = cls(references, squares, np.zeros(0), np.zeros(0))
        kind = shares[used].argmax(axis=1)
        kinds, counts = np.unique(kind, return_counts=True)
        if len(kinds) < 2 or counts.max() + _NEAREST >= len(used):
            return trusting
        apart = _squared_distances(references, references, squares)
        own = apart.copy()
        np.fill_diagonal(own, np.inf)
        known_ground = float(np.quantile(_mean_of_nearest(own), _KNOWN_GROUND))
        distance = np.empty(len(used))
        said, right = np.empty((2, len(used), deviations.shape[1]))
        for number in kinds.tolist():
            foreign = kind == number
            distance[foreign] = _mean_of_nearest(apart[np.ix_(foreign, ~foreign)])
            said[foreign], right[foreign] = _without(shares[used], directions[used, :_MAX_DIRECTIONS], deviations[used], foreign, number)
        beyond = distance > known_ground
        if beyond.sum() < _MIN_FOREIGN:
            return trusting
        return cls(references, squares, *_falling(distance[beyond], said[beyond], right[beyond], known_ground))

    def distance(self, rows: Floats) -> Floats:
        """(n,) mean distance of *rows* (n, d) to the nearest training questions."""
        return _mean_of_nearest(_squared_distances(rows, self.references, self.squares))

    def share(self, rows: Floats) -> Floats:
        """(n,) of a prediction that may be trusted, in [0, 1]."""
        if not len(self.distances):
            return np.ones(len(rows))
        found: Floats = np.interp(self.distance(rows), self.distances, self.shares)
        return found


def _without(shares: Floats, directions: Floats, deviations: Floats, foreign: npt.NDArray[np.bool_], kind: int) -> tuple[Floats, Floats]:
    """What a gated regression that never saw *kind* says of its questions, and what would have been right, both beyond what experts do
    everywhere else (n, E).

    The shares of the other kinds are those of a classifier that does not know it: the odds between two classes of a softmax do not
    depend on a third.
    """
    others = np.delete(shares, kind, axis=1).astype(np.float64) + _MIN_NORM
    others /= others.sum(axis=1, keepdims=True)
    everywhere = deviations[~foreign].mean(axis=0)
    model, _ = GatedRidge.fitted(
        others[~foreign],
        directions[~foreign],
        deviations[~foreign],
        means=np.broadcast_to(everywhere, deviations[~foreign].shape),
        offsets=everywhere,
        judged=np.arange(0),
    )
    return model.predict(others[foreign], directions[foreign]) - everywhere, deviations[foreign] - everywhere


def _falling(distance: Floats, said: Floats, right: Floats, known_ground: float) -> tuple[Floats, Floats]:
    """Knots: distances from *known_ground* on, and the shares of what was said (n, E) that come nearest to what was right."""
    from sklearn.isotonic import IsotonicRegression

    weight = np.square(said).sum(axis=1) + _MIN_NORM
    share = (said * right).sum(axis=1) / weight
    fitted = IsotonicRegression(increasing=False, y_min=0.0, y_max=1.0).fit(distance, share, sample_weight=weight)
    places = np.quantile(distance, (np.arange(_MAX_KNOTS) + 0.5) / _MAX_KNOTS)
    farthest = float(distance.max()) + _MIN_NORM
    return np.concatenate([[known_ground], places, [farthest]]), np.concatenate([[1.0], fitted.predict(places), [0.0]])


def _squared_distances(rows: Floats, references: Floats, squares: Floats) -> Floats:
    """(n, M)"""
    found: Floats = np.maximum(np.square(rows).sum(axis=1)[:, None] + squares - 2 * (rows @ references.T), 0.0)
    return found


def _mean_of_nearest(squared: Floats) -> Floats:
    """(n,) of squared distances (n, M)."""
    count = min(_NEAREST, squared.shape[1])
    nearest: Floats = np.sqrt(np.partition(squared, count - 1, axis=1)[:, :count]).mean(axis=1)
    return nearest
