"""Keys and values of the sequences that are alive, one row each."""

from __future__ import annotations

import torch
from torch import Tensor

from workers.embedded.shape import DecoderShape

_LENGTH_STEP = 64
"""Lengths grow by this many tokens, so that a growing sequence does not copy the cache at every token."""


class KeyValueCache:
    """One tensor a layer, (rows, 2, kv heads, length, head size).

    Rows in use are 0 … n-1 without gaps: a step then reads a view instead of gathering. Room grows with need and is given
    back when no sequence is left; nothing is reserved for sequences that may come.
    """

    def __init__(self, shape: DecoderShape, dtype: torch.dtype) -> None:
        self._shape, self._dtype = shape, dtype
        self.layers: list[Tensor] = []

    @property
    def num_rows(self) -> int:
        return self.layers[0].shape[0] if self.layers else 0

    @property
    def length(self) -> int:
        return self.layers[0].shape[3] if self.layers else 0

    @property
    def num_bytes(self) -> int:
        return sum(layer.numel() * layer.element_size() for layer in self.layers)

    def reserve(self, rows: int, length: int) -> None:
        """Room for *rows* sequences of up to *length* tokens; what is there is kept."""
        if rows <= self.num_rows and length <= self.length:
            return
        shape = self._shape
        if rows > self.num_rows:
            rows = 1 << (rows - 1).bit_length()
        rows = max(rows, self.num_rows)
        length = min(-(-max(length, self.length) // _LENGTH_STEP) * _LENGTH_STEP, shape.max_length)
        old, self.layers = self.layers, []
        for i in range(shape.num_layers):
            layer = torch.zeros(rows, 2, shape.num_kv_heads, length, shape.head_size, dtype=self._dtype)
            if old:
                layer[: old[i].shape[0], :, :, : old[i].shape[3]] = old[i]
            self.layers.append(layer)

    def move(self, source: int, target: int, length: int) -> None:
        """Row *source*, up to *length* tokens, to row *target*."""
        for layer in self.layers:
            layer[target, :, :, :length] = layer[source, :, :, :length]

    def clear(self) -> None:
        """Give all memory back."""
        self.layers = []
