"""Which expert wins a question: the labels of routers that learn where each expert is best. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from domain.outcomes import OutcomeTable
from routers.learned.base import Floats, mean_scores, score_matrix

NOBODY = -1


def winners(table: OutcomeTable) -> npt.NDArray[np.int64]:
    """(N,) the column of the best expert of each question; ``NOBODY`` where all who were measured score alike.

    Scores are often right or wrong, and most questions are answered rightly by several: of those the one wins that is best in the
    question's category (over everything, where questions have none). Counting such a question for each of them makes all experts look
    alike, and counting it for nobody leaves the odd questions that only a weak expert happened to get right; on nine real models both
    routed far worse than always asking the best one, and this better. With a single expert every question that it did not fail is won.
    """
    scores = score_matrix(table)
    measured = ~np.isnan(scores)
    best = np.where(measured, scores, -np.inf).max(axis=1)
    if scores.shape[1] == 1:
        return np.where(best > 0, 0, NOBODY)
    worst = np.where(measured, scores, np.inf).min(axis=1)
    strength = _strengths(table, scores)
    won = np.where(scores == best[:, None], strength, -np.inf).argmax(axis=1)
    return np.where(best > worst, won, NOBODY)


def _strengths(table: OutcomeTable, scores: Floats) -> Floats:
    """(N, E) how good each expert is in the question's category, shrunk to how good it is over everything."""
    overall = mean_scores(scores)
    if not table.categories:
        return np.tile(overall, (len(table), 1))
    names, numbers = np.unique([category or "" for category in table.categories], return_inverse=True)
    measured = ~np.isnan(scores)
    sums, counts = np.zeros((len(names), len(overall))), np.zeros((len(names), len(overall)))
    np.add.at(sums, numbers, np.where(measured, scores, 0.0))
    np.add.at(counts, numbers, measured)
    return ((sums + overall) / (counts + 1))[numbers]
