"""Ridge regression with weights of their own for every kind of question, in closed form.

A row is ``[p, p ⊗ z]``: the shares *p* (K,) of the kinds, and the directions *z* (r,) of the text once for every kind. So each kind has
a mean per expert and corrects it by what tells its questions apart, which differs from kind to kind; kinds share nothing but the
penalty. An expert is a column: one that comes is solved alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from routers.learned.base import Floats

Ints = npt.NDArray[np.int64]

_LOCAL = 0.3
"""Scale of the directions: what a kind's mean is penalised less than its corrections."""
_PENALTY = 1.0
_MAX_WIDTH = 1280
"""Of a row; the solution takes its cube."""
_MAX_FITTED = 50_000
_ENOUGH = 0.99
"""Of the questions that an expert was measured on: then it shares the matrix of all, and what is missing counts as its kind's mean."""
_CHUNK = 4096


@dataclass(frozen=True)
class GatedRidge:
    """Fitted."""

    num_directions: int
    offsets: Floats
    """(E + 1,) what is predicted where nothing is known."""
    weights: Floats
    """(D, E + 1), the last column for the level of a question: what experts score on it on average."""

    @classmethod
    def fitted(
        cls, shares: Floats, directions: Floats, targets: Floats, *, means: Floats, offsets: Floats, judged: Ints
    ) -> tuple[GatedRidge, Floats]:
        """From *shares* (N, K), *directions* (N, r), *targets* (N, E + 1), NaN where unknown, what stands for those, *means* (N, E + 1),
        and *offsets* (E + 1,), which weights are shrunk to. Also the predictions of the rows *judged*, each without its own target."""
        r = min(directions.shape[1], _MAX_WIDTH // shares.shape[1] - 1)
        used = np.arange(len(shares)) if len(shares) <= _MAX_FITTED else np.linspace(0, len(shares) - 1, _MAX_FITTED).astype(np.int64)
        known = ~np.isnan(targets)
        apart = np.flatnonzero(known[used].mean(axis=0) < _ENOUGH)
        together = np.setdiff1d(np.arange(targets.shape[1]), apart)
        weights = np.zeros((shares.shape[1] * (1 + r), targets.shape[1]))
        left_out = np.zeros((len(judged), targets.shape[1]), np.float32)
        filled = np.where(known, targets, means) - offsets
        inside = np.isin(judged, used)
        groups = [(together, used), *((np.array([column]), used[known[used, column]]) for column in apart)]
        for columns, rows in groups:
            if not len(columns) or not len(rows):
                continue
            gram, moments = _sums(shares, directions[:, :r], filled[:, columns], rows)
            inverse = np.linalg.inv(gram + _PENALTY * np.eye(len(gram)))
            weights[:, columns] = inverse @ moments
            lifted = _lifted(shares[judged], directions[judged, :r]).astype(np.float64)
            predicted = lifted @ weights[:, columns]
            leverage = np.where(inside, np.minimum(np.einsum("nd,nd->n", lifted @ inverse, lifted), 0.999), 0.0)[:, None]
            mine = known[judged][:, columns] | (len(columns) > 1)
            residual = np.where(mine, filled[judged][:, columns] - predicted, 0.0)
            # Its own target pulled a prediction by the leverage's share of the residual (exact for ridge regression).
            left_out[:, columns] = predicted - residual * leverage / (1 - leverage)
        return cls(r, offsets.astype(np.float32), weights.astype(np.float32)), left_out + offsets.astype(np.float32)

    def predict(self, shares: Floats, directions: Floats) -> Floats:
        """(n, E + 1)"""
        out = np.empty((len(shares), self.weights.shape[1]), np.float32)
        for start in range(0, len(shares), _CHUNK):
            part = slice(start, start + _CHUNK)
            out[part] = self.offsets + _lifted(shares[part], directions[part, : self.num_directions]) @ self.weights
        return out

    def with_column(self, shares: Floats, directions: Floats, target: Floats, offset: float) -> GatedRidge:
        """One more expert, solved from *target* (N,) alone and shrunk to *offset*; it stands before the level."""
        residual = (target - offset)[:, None]
        gram, moments = _sums(shares, directions[:, : self.num_directions], residual, np.arange(len(shares))[:_MAX_FITTED])
        column = np.linalg.solve(gram + _PENALTY * np.eye(len(gram)), moments).astype(np.float32)
        return replace(
            self,
            offsets=np.insert(self.offsets, -1, offset),
            weights=np.concatenate([self.weights[:, :-1], column, self.weights[:, -1:]], axis=1),
        )

    def with_columns(self, kept: list[int]) -> GatedRidge:
        """These experts only, and the level."""
        columns = [*kept, self.weights.shape[1] - 1]
        return replace(self, offsets=self.offsets[columns], weights=self.weights[:, columns])


def _lifted(shares: Floats, directions: Floats) -> Floats:
    """(n, K (1 + r)) float32"""
    local = np.concatenate([np.ones((len(shares), 1), np.float32), np.float32(_LOCAL) * directions.astype(np.float32)], axis=1)
    lifted: Floats = (shares.astype(np.float32)[:, :, None] * local[:, None, :]).reshape(len(shares), local.shape[1] * shares.shape[1])
    return lifted


def _sums(shares: Floats, directions: Floats, targets: Floats, rows: Ints) -> tuple[Floats, Floats]:
    """``XᵀX`` and ``XᵀY`` over *rows*."""
    width = shares.shape[1] * (1 + directions.shape[1])
    gram, moments = np.zeros((width, width)), np.zeros((width, targets.shape[1]))
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        lifted = _lifted(shares[part], directions[part])
        gram += lifted.T @ lifted
        moments += lifted.T @ targets[part].astype(np.float32)
    return gram, moments
