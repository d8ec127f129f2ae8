"""From a query's vector to its category, with a probability that can be trusted: kNN votes or a linear classifier, calibrated."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from routers.learned.base import Floats
from routers.learned.vector_index import VectorIndex

KINDS = ("logistic", "discriminant", "knn")
"""Multinomial logistic regression; linear discriminant analysis with a shrunk covariance (Ledoit-Wolf), which was the best with few
questions a category; nearest neighbours."""
_STRENGTHS = (1.0, 3.0, 10.0)
"""Tried inverse regularisations of the logistic regression."""
_NUM_VOTING = (5, 10, 20, 40)
"""Tried numbers of neighbours."""
_PARAMETERS = {"logistic": _STRENGTHS, "discriminant": (0.0,), "knn": tuple(float(k) for k in _NUM_VOTING)}
_VOTE_WIDTH = 0.1
"""A neighbour that is this much less similar has 1/e of a vote."""
_VOTE_PRIOR = 0.05
"""Votes that every category has before anybody voted, in shares of one neighbour's."""
_NUM_FOLDS = 5
_MAX_VALIDATED = 2000
"""Questions that kinds are compared and calibrated on."""
_MAX_FITTED = 20_000
"""Questions that the regression is fitted on; it has D + 1 numbers per category and gains nothing from more."""
_TEMPERATURES = (0.05, 20.0)


class Classifier(Protocol):
    """Fitted: unnormalised log probabilities of every category."""

    def logits(self, vectors: Floats) -> Floats:
        """(N, C)"""
        ...


@dataclass(frozen=True)
class Linear:
    """Logistic regression or discriminant analysis: both end as this."""

    weights: Floats
    """(D + 1, C), the bias last."""

    def logits(self, vectors: Floats) -> Floats:
        logits: Floats = vectors @ self.weights[:-1] + self.weights[-1]
        return logits


@dataclass(frozen=True)
class Votes:
    """The nearest labelled questions vote, the nearer the more."""

    index: VectorIndex
    classes: npt.NDArray[np.int64]
    num_classes: int
    k: int

    def logits(self, vectors: Floats) -> Floats:
        cosines, rows = self.index.search(vectors, self.k)
        votes = np.where(rows < 0, 0.0, np.exp((cosines - 1.0) / _VOTE_WIDTH))
        votes /= np.maximum(votes.max(axis=1, keepdims=True, initial=0.0), 1e-30)
        counted = np.full((len(vectors), self.num_classes), _VOTE_PRIOR)
        np.add.at(counted, (np.arange(len(vectors))[:, None], self.classes[rows]), votes)
        logs: Floats = np.log(counted)
        return logs


@dataclass(frozen=True, slots=True)
class Validated:
    """A kind of classifier and what cross-validation says of it."""

    kind: str
    parameter: float
    """Inverse regularisation, number of neighbours, or 0 where nothing is tried."""
    temperature: float
    """Logits are divided by it before they become probabilities: it minimises the log loss on held-out questions."""
    accuracy: float
    log_loss: float
    probabilities: Floats
    """(N', C) held out, of ``rows``."""
    rows: npt.NDArray[np.int64]
    """(N',) which questions were validated."""


def softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def fit(kind: str, parameter: float, vectors: Floats, classes: npt.NDArray[np.int64], num_classes: int, *, seed: int) -> Classifier:
    """A classifier of *vectors* (N, D) into *classes* (N,), numbers below *num_classes*; some may have no question."""
    if kind == "knn":
        return Votes(VectorIndex(vectors, seed=seed), classes, num_classes, int(parameter))
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    present = np.unique(classes)
    weights = np.zeros((vectors.shape[1] + 1, num_classes))
    weights[-1] = -30.0  # of a category without a question
    weights[-1, present] = 0.0
    if len(present) > 1:
        rows = np.random.default_rng(seed).permutation(len(vectors))[:_MAX_FITTED] if len(vectors) > _MAX_FITTED else slice(None)
        if kind == "discriminant":
            made = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        else:
            made = LogisticRegression(C=parameter, max_iter=200)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # nearly converged classifies as well
            fitted = made.fit(vectors[rows], classes[rows])
        coefficients, biases = fitted.coef_, fitted.intercept_
        if len(coefficients) == 1:  # two categories: one row, for the second
            coefficients, biases = np.stack([-coefficients[0], coefficients[0]]) / 2, np.array([-biases[0], biases[0]]) / 2
        weights[-1] = -30.0
        weights[:-1, fitted.classes_], weights[-1, fitted.classes_] = coefficients.T, biases
    return Linear(weights.astype(np.float32))


def validate(kinds: Sequence[str], vectors: Floats, classes: npt.NDArray[np.int64], num_classes: int, *, seed: int) -> Validated:
    """The kind and parameter with the least log loss on held-out questions, calibrated on them: it tells more with few questions than the
    number of right ones does."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(vectors))[:_MAX_VALIDATED])
    folds = _folds(classes[rows], rng)
    some_vectors, some_classes = vectors[rows], classes[rows]
    best: Validated | None = None
    for kind in kinds:
        for parameter in _PARAMETERS[kind]:
            logits = np.empty((len(rows), num_classes))
            for fold in range(int(folds.max()) + 1):
                held = folds == fold
                train = ~held if (~held).any() else held  # a single question: there is nothing else to learn from
                model = fit(kind, parameter, some_vectors[train], some_classes[train], num_classes, seed=seed)
                logits[held] = model.logits(some_vectors[held])
            temperature = _temperature(logits, some_classes)
            probabilities = softmax(logits / temperature)
            found = Validated(
                kind=kind,
                parameter=parameter,
                temperature=temperature,
                accuracy=float((probabilities.argmax(axis=1) == some_classes).mean()),
                log_loss=_log_loss(probabilities, some_classes),
                probabilities=probabilities,
                rows=rows,
            )
            if best is None or found.log_loss < best.log_loss:
                best = found
    assert best is not None  # noqa: S101 - there is always a kind
    return best


def _folds(classes: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """(N,) which fold a question is held out in; the categories spread evenly over the folds."""
    order = rng.permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    folds = np.empty(len(classes), np.int64)
    folds[order] = np.arange(len(classes)) % min(_NUM_FOLDS, len(classes))
    return folds


def _temperature(logits: Floats, classes: npt.NDArray[np.int64]) -> float:
    from scipy.optimize import minimize_scalar

    low, high = np.log(_TEMPERATURES)
    found = minimize_scalar(lambda log_t: _log_loss(softmax(logits / np.exp(log_t)), classes), bounds=(low, high), method="bounded")
    return float(np.exp(found.x))


def _log_loss(probabilities: Floats, classes: npt.NDArray[np.int64]) -> float:
    return float(-np.log(np.maximum(probabilities[np.arange(len(classes)), classes], 1e-12)).mean())
