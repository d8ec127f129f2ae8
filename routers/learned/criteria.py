"""How well predicted scores choose: what learned routers pick their hyper-parameters by. Pure."""

from __future__ import annotations

import numpy as np

from routers.learned.base import Floats


def contrast_error(predicted: Floats, truth: Floats) -> float:
    """Mean squared error of how much better or worse than the others each expert does on a question; both (N, E), NaN in *truth* where
    not measured.

    A choice depends on differences between experts. The error of the scores themselves is mostly that of the questions' difficulty,
    which moves all experts alike: judged by it, a router is smoothed too little for its choices. With one expert measured on a question
    nothing is compared there; with one on all, the plain squared error is returned.
    """
    measured = ~np.isnan(truth)
    counts = measured.sum(axis=1, keepdims=True)
    errors = np.where(measured, predicted - truth, 0.0)
    if (counts > 1).any():
        compared = measured & (counts > 1)
        errors = np.where(compared, errors - errors.sum(axis=1, keepdims=True) / np.maximum(counts, 1), 0.0)
        measured = compared
    return float(np.square(errors).sum() / max(1, measured.sum()))


def choice_loss(predicted: Floats, truth: Floats) -> float:
    """One less the mean score of the experts that *predicted* would choose, over questions where the chosen one was measured.

    What a router is for, and noisy: good for a few candidates, where many would be chosen among by luck.
    """
    chosen = np.where(np.isnan(predicted), -np.inf, predicted).argmax(axis=1)
    scores = np.take_along_axis(truth, chosen[:, None], axis=1)
    return 1.0 - float(np.nanmean(scores)) if not np.isnan(scores).all() else 1.0
