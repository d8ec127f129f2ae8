"""The learned routers as evaluations take them: by name, on texts, with vectors that are encoded once.

Satisfies ``evaluation.comparison.ports.RouterFamily``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from domain.outcomes import OutcomeTable
from routers import learned
from routers.encoder import Encoder
from routers.learned.base import Estimator, Features, Floats, ScoreModel
from routers.learned.features import ViewsEncoder
from routers.one_core import one_core

Vectors = npt.NDArray[np.float32]

_CHUNK = 256
"""Texts that are encoded and kept together: some seconds of work, which is what an interruption costs."""


class VectorStore(Protocol):
    """Keeps arrays under keys."""

    def get(self, key: str) -> Floats | None: ...

    def put(self, key: str, values: Floats) -> None: ...


class LearnedFamily:
    """*estimators* makes each router by name, with its defaults. Vectors are kept in *store* under the encoder and the texts.

    The encoder is loaded when it is first needed.
    """

    def __init__(self, estimators: Mapping[str, Callable[[], Estimator]], encoder: Encoder, store: VectorStore | None = None) -> None:
        self._estimators, self._views, self._store = estimators, ViewsEncoder(encoder), store

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._estimators)

    @property
    def version(self) -> str:
        """Of the encoder and of the routers' code: what was predicted under another one may be predicted otherwise now."""
        code = sorted(Path(learned.__file__).parent.rglob("*.py"))
        digest = hashlib.blake2b(b"".join(path.read_bytes() for path in code), digest_size=8).hexdigest()
        return f"{self._encoder_id()} {digest}"

    def features(self, texts: Sequence[str], told: Callable[[int, int], None]) -> Features:
        """Of each of *texts*, in order; *told* hears how many are encoded, of how many."""
        told(0, len(texts))
        parts: list[Vectors] = []
        for start in range(0, len(texts), _CHUNK):
            parts.append(self._vectors(texts[start : start + _CHUNK]))
            told(min(start + _CHUNK, len(texts)), len(texts))
        return self._views.describe(texts, np.concatenate(parts) if parts else self._views.encode_now(()))

    def select(self, features: Features, rows: Sequence[int]) -> Features:
        """Those rows, in this order."""
        return features.rows(rows)

    def fit(self, name: str, features: Features, table: OutcomeTable, *, seed: int) -> Fitted:
        """Raises ``InvalidRequest`` as the router itself does."""
        with one_core():
            return Fitted(self._estimators[name]().fit(features, table, seed=seed))

    def _encoder_id(self) -> str:
        self._views.encode_now(())  # loads the model, which knows its id
        return self._views.encoder_id

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        lengths = b"".join(len(text).to_bytes(8, "little") for text in texts)
        content = hashlib.blake2b("".join(texts).encode("utf-8", "surrogatepass") + lengths, digest_size=16).hexdigest()
        key = f"vectors-{hashlib.blake2b(self._encoder_id().encode(), digest_size=8).hexdigest()}-{content}"
        known = None if self._store is None else self._store.get(key)
        if known is not None and known.shape == (len(texts), self._views.dimensions):
            return np.asarray(known, np.float32)
        vectors = self._views.encode_now(texts)
        if self._store is not None:
            self._store.put(key, vectors)
        return vectors


class Fitted:
    """``evaluation.comparison.ports.FittedRouter``."""

    def __init__(self, model: ScoreModel) -> None:
        self._model = model

    def predict(self, features: Features) -> Floats:
        """(N, E) expected scores."""
        return self._model.predict(features)

    def categories(self, features: Features) -> Sequence[str] | None:
        """(N) what the router takes each question for, when it says so in its explanations."""
        found: list[str] = []
        for row in range(len(features)):
            category = self._model.explain(features, row).get("category")
            if not isinstance(category, str):
                return None
            found.append(category)
        return found
