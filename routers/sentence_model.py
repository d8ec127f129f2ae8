"""Any other encoder: a sentence-transformers model id or folder, in float32 on the processor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from domain.errors import NotReady

Vectors = npt.NDArray[np.float32]

_MAX_BATCH = 32
_CHARS_PER_TOKEN = 16
_UNLIMITED_TOKENS = 8192
"""Taken for a model that names no limit of its own."""


class SentenceModel:
    """Texts to L2-normalised vectors through sentence-transformers."""

    early_dimensions = 0

    def __init__(self, name: str) -> None:
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(name, device="cpu")
        except (OSError, ValueError) as exc:
            raise NotReady(
                f"the encoder {name!r} cannot be loaded: {exc}. Set it to a folder, or to a model that is on this machine"
            ) from exc
        self._model.tokenizer.truncation_side = "left"
        self.encoder_id = f"{Path(name).name}-{_fingerprint(name)}"
        self.dimensions = int(self._model.get_embedding_dimension() or 0)
        self.max_chars = int(self._model.max_seq_length or _UNLIMITED_TOKENS) * _CHARS_PER_TOKEN

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors (n, dimensions) float32 of unit length, in the order of *texts*."""
        vectors = self._model.encode(
            list(texts), batch_size=_MAX_BATCH, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors, np.float32)

    embed_views = embed

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens of *texts* after truncation, the model's own marks included."""
        return sum(len(ids) for ids in self._model.tokenizer(list(texts), truncation=True)["input_ids"])

    def close(self) -> None:
        """Nothing to release but memory."""


def _fingerprint(name: str) -> str:
    """Tells models of the same name apart, so that vectors of one are never compared with vectors of the other.

    Of a folder its configuration and the sizes of its files, of a model id the id.
    """
    digest = hashlib.blake2b(name.encode() if not Path(name).is_dir() else b"", digest_size=4)
    if Path(name).is_dir():
        for path in sorted(p for p in Path(name).rglob("*") if p.is_file()):
            digest.update(f"{path.relative_to(name)}:{path.stat().st_size};".encode())
            if path.suffix == ".json" and path.stat().st_size < 100_000:
                digest.update(path.read_bytes())
    return digest.hexdigest()
