"""Where texts become what learned routers look at: the same way for fitting and for serving, for many and for one.

What a text may cost is bounded, since a request may carry a whole book: the encoder reads the last 256 tokens (``routers.onnx_model``),
where the question usually stands; the surface (``routers.learned.text_features``) is read of the first and the last 4,096 characters.
Reading long texts in pieces and averaging was tried and told experts apart no better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from routers.learned.base import Features, Floats

Vectors = npt.NDArray[np.float32]


class HasViews(Protocol):
    """What is needed of the encoder."""

    @property
    def encoder_id(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    @property
    def early_dimensions(self) -> int: ...

    async def encode_views(self, texts: Sequence[str]) -> Vectors: ...

    def encode_views_now(self, texts: Sequence[str]) -> Vectors: ...


class ViewsEncoder:
    """An encoder whose vectors are both views of a text side by side, late and early: one run of the model, one array to keep.

    ``describe`` takes them apart. Its vectors are stored under an id of their own.
    """

    def __init__(self, encoder: HasViews) -> None:
        self._encoder = encoder

    @property
    def encoder_id(self) -> str:
        """Raises ``NotReady`` before the model is loaded, like everything below but ``encode_now``."""
        name = self._encoder.encoder_id
        return f"{name}+early" if self._encoder.early_dimensions else name

    @property
    def dimensions(self) -> int:
        """Of both views together."""
        return self._encoder.dimensions + self._encoder.early_dimensions

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """(n, dimensions); raises what the encoder raises."""
        return await self._encoder.encode_views(texts)

    def encode_now(self, texts: Sequence[str]) -> Vectors:
        """The same for scripts; loads the model when it is not loaded yet."""
        return self._encoder.encode_views_now(texts)

    def describe(self, texts: Sequence[str], views: Floats) -> Features:
        """What models look at, of texts and their *views* (n, dimensions)."""
        late = self._encoder.dimensions
        vectors = np.ascontiguousarray(views[:, :late])
        return Features(tuple(texts), vectors, np.ascontiguousarray(views[:, late:]) if views.shape[1] > late else None)
