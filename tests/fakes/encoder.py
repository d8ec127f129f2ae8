"""An encoder without a model: texts that share words are near to each other."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


class HashingEncoder:
    """Every word and every three letters of one add a fixed random direction. Deterministic on every machine.

    ``batches`` records what was asked for, one entry a call.
    """

    ready = True
    early_dimensions = 0

    def __init__(self, dimensions: int = 64) -> None:
        self.encoder_id = f"hashing-{dimensions}"
        self.dimensions = dimensions
        self.batches: list[tuple[str, ...]] = []

    async def encode(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(tuple(texts))
        return self.encode_now(texts)

    async def encode_views(self, texts: Sequence[str]) -> Vectors:
        return await self.encode(texts)

    def encode_views_now(self, texts: Sequence[str]) -> Vectors:
        return self.encode_now(texts)

    def encode_now(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            for piece in _pieces(text):
                vectors[row] += self._direction(piece)
            vectors[row] /= max(float(np.linalg.norm(vectors[row])), 1e-9)
        return vectors

    def _direction(self, piece: str) -> Vectors:
        seed = int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=8).digest(), "big")
        return np.random.default_rng(seed).standard_normal(self.dimensions).astype(np.float32)


def _pieces(text: str) -> list[str]:
    words = re.findall(r"\w+", text.lower())
    return [*words, *(word[i : i + 3] for word in words for i in range(len(word) - 2))]


class FakeTextModel:
    """A text model for the real encoder: its vectors are the hashing encoder's, its runs are recorded.

    With *gate* (a ``threading.Event``) every run waits for it, and ``entered`` is set when one waits.
    """

    def __init__(self, *, gate: threading.Event | None = None, max_chars: int = 1000) -> None:
        self._hashing = HashingEncoder()
        self._gate = gate
        self.entered = threading.Event()
        self.encoder_id = self._hashing.encoder_id
        self.dimensions = self._hashing.dimensions
        self.early_dimensions = 0
        self.max_chars = max_chars
        self.runs: list[tuple[str, ...]] = []
        self.error: Exception | None = None
        self.closed = False

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.runs.append(tuple(texts))
        self.entered.set()
        if self._gate is not None and not self._gate.wait(10):
            raise TimeoutError("the test never opened the gate")
        if self.error is not None:
            raise self.error
        return self._hashing.encode_now(texts)

    embed_views = embed

    def close(self) -> None:
        self.closed = True
