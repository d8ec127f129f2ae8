"""Which kind of question a query is, as shares of kinds: of labelled categories, or of clusters where nothing is labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routers.learned import category_classifier
from routers.learned.base import Floats
from routers.learned.category_classifier import Classifier, softmax

_STRENGTH = 2.0
"""Inverse regularisation of the classifier: 94 % of questions from 13 public tasks are told right, 93 % at 10."""
_NUM_FOLDS = 5
_MAX_FITTED = 20_000
"""Questions that kinds are learnt from."""
_MAX_KINDS = 24
"""More categories are put together by what they are about: what follows grows with their number."""
_MAX_CLUSTERS = 12
_QUESTIONS_PER_CLUSTER = 60
_LABELLED_SHARE = 0.5
"""Of the questions must have a category, or categories are no guide."""


@dataclass(frozen=True)
class Kinds:
    """Names of kinds, and a classifier of rows into them."""

    names: tuple[str, ...]
    """What a kind is called; those of categories that were put together are joined."""
    labelled: bool
    """Whether kinds are categories."""
    classifier: Classifier | None
    """None where there is one kind only."""

    @classmethod
    def learnt(cls, rows: Floats, categories: Sequence[str | None], *, seed: int) -> tuple[Kinds, Floats]:
        """Kinds of the training questions *rows* (N, d), and the shares (N, K) of each as a classifier sees it that never saw the
        question: what is fitted on shares must know how often they are wrong."""
        names, classes, labelled = _classes(rows, categories, seed=seed)
        if len(names) < 2:
            return cls(("all",), False, None), np.ones((len(rows), 1), np.float32)
        rng = np.random.default_rng(seed)
        known = np.flatnonzero(classes >= 0)
        used = np.sort(rng.permutation(known)[:_MAX_FITTED])

        def fitted(on: npt.NDArray[np.int64]) -> Classifier:
            return category_classifier.fit("logistic", _STRENGTH, rows[on], classes[on], len(names), seed=seed)

        kinds = cls(names, labelled, fitted(used))
        shares = kinds.shares(rows)
        fold_of = rng.permutation(len(used)) % min(_NUM_FOLDS, len(used))
        for fold in range(int(fold_of.max()) + 1):
            held = used[fold_of == fold]
            if len(held) < len(used):
                shares[held] = _shares(fitted(used[fold_of != fold]), rows[held])
        return kinds, shares

    def shares(self, rows: Floats) -> Floats:
        """(N, K), each row sums to 1."""
        return np.ones((len(rows), 1), np.float32) if self.classifier is None else _shares(self.classifier, rows)


def _shares(classifier: Classifier, rows: Floats) -> Floats:
    return softmax(classifier.logits(rows)).astype(np.float32)


def _classes(rows: Floats, categories: Sequence[str | None], *, seed: int) -> tuple[tuple[str, ...], npt.NDArray[np.int64], bool]:
    """Names of kinds, the kind of each row or -1, and whether they are labelled."""
    known = [category for category in categories if category is not None]
    names = tuple(sorted(set(known)))
    if len(known) < _LABELLED_SHARE * len(rows) or len(names) < 2:
        classes = _clusters(rows, min(_MAX_CLUSTERS, len(rows) // _QUESTIONS_PER_CLUSTER), seed=seed)
        return tuple(f"cluster {number + 1}" for number in range(int(classes.max(initial=0)) + 1)), classes, False
    place = {name: number for number, name in enumerate(names)}
    classes = np.array([-1 if category is None else place[category] for category in categories], np.int64)
    if len(names) <= _MAX_KINDS:
        return names, classes, True
    centres = np.stack([rows[classes == number].mean(axis=0) for number in range(len(names))])
    group_of = _clusters(centres, _MAX_KINDS, seed=seed)
    joined = tuple(" / ".join(name for name, group in zip(names, group_of, strict=True) if group == number) for number in range(_MAX_KINDS))
    return joined, np.where(classes >= 0, group_of[classes], -1), True


def _clusters(rows: Floats, count: int, *, seed: int) -> npt.NDArray[np.int64]:
    """(N,) numbers below *count*; all 0 for fewer than two."""
    if count < 2:
        return np.zeros(len(rows), np.int64)
    from sklearn.cluster import KMeans

    sampled = np.random.default_rng(seed).permutation(len(rows))[:_MAX_FITTED]
    found = KMeans(count, n_init=2, random_state=seed).fit(rows[sampled])
    clusters: npt.NDArray[np.int64] = found.predict(rows).astype(np.int64)
    return clusters
