"""The numbers that the recommended router computes with: what the encoder says of a text, late and early, and the text's surface.

Late vectors know the topic; early ones (token means after the third layer) the wording, which tells kinds of questions apart that are
about the same things; the surface knows marks, lengths and endings, which no encoder keeps. On public tasks each added to the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routers.learned.base import Features, Floats
from routers.learned.text_features import text_features

_RANKS = {"late": 128, "early": 128, "surface": 64}
"""Principal directions that are kept of each."""
_MAX_SAMPLED = 20_000
"""Rows that directions are computed from; more change none."""
_MAX_DEVIATION = 4.0
"""Standard deviations at which a number of the surface is cut off: a text of a megabyte counts as a very long one."""


@dataclass(frozen=True)
class Block:
    """The principal directions of one source, centred, and scaled so that a row has length 1 on average."""

    centre: Floats
    projection: Floats
    """(D, r)"""

    @classmethod
    def principal(cls, rows: Floats, rank: int) -> Block:
        """The *rank* directions along which *rows* (N, D) differ most."""
        centre = rows.mean(axis=0, dtype=np.float64)
        some = rows - centre
        length = max(float(np.sqrt(np.square(some).sum(axis=1).mean())), 1e-9)
        _, vectors = np.linalg.eigh(some.T @ some)
        directions = vectors[:, ::-1][:, :rank]
        # The sign of a direction is arbitrary, and must not depend on the library.
        largest = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
        return cls(centre.astype(np.float32), (directions * np.where(largest < 0, -1.0, 1.0) / length).astype(np.float32))

    def __call__(self, rows: Floats) -> Floats:
        projected: Floats = (rows - self.centre) @ self.projection
        return projected


@dataclass(frozen=True, slots=True)
class Rows:
    """Of N queries, float32. Directions are in falling order of what they tell."""

    surface: Floats
    """(N, names of ``text_features``) as they are, for explanations and trees."""
    late: Floats
    early: Floats
    """(N, 0) where the encoder has no early view."""
    marks: Floats
    """(N, r) directions of the surface."""

    def __len__(self) -> int:
        return len(self.surface)

    def beside(self, late: int, early: int, marks: int, *, marks_length: float) -> Floats:
        """So many directions of each, side by side. Rows of late and early ones have length 1 on average, marks *marks_length*."""
        return np.concatenate([self.late[:, :late], self.early[:, :early], np.float32(marks_length) * self.marks[:, :marks]], axis=1)

    def taken(self, numbers: npt.NDArray[np.int64]) -> Rows:
        return Rows(self.surface[numbers], self.late[numbers], self.early[numbers], self.marks[numbers])


@dataclass(frozen=True)
class Design:
    """How features become rows; made of the training questions, used for every query."""

    late: Block
    early: Block | None
    mean: Floats
    scale: Floats
    """Of the surface's numbers."""
    marks: Block

    @classmethod
    def of(cls, features: Features, *, seed: int) -> tuple[Design, Rows]:
        """The design of training questions, and their rows."""
        surface = text_features(features.texts)
        sampled = np.sort(np.random.default_rng(seed).permutation(len(features))[:_MAX_SAMPLED])
        mean, scale = surface[sampled].mean(axis=0), np.maximum(surface[sampled].std(axis=0), 1e-3)
        design = cls(
            late=Block.principal(features.vectors[sampled], _RANKS["late"]),
            early=None if features.early is None else Block.principal(features.early[sampled], _RANKS["early"]),
            mean=mean,
            scale=scale,
            marks=Block.principal(_standard(surface[sampled], mean, scale), _RANKS["surface"]),
        )
        return design, design._rows(features, surface)

    def rows(self, features: Features) -> Rows:
        return self._rows(features, text_features(features.texts))

    def _rows(self, features: Features, surface: Floats) -> Rows:
        early = np.zeros((len(features), 0), np.float32)
        if self.early is not None:
            # Where it was fitted with an early view and asked without one, every query is an average one.
            early = np.zeros((len(features), self.early.projection.shape[1]), np.float32)
            if features.early is not None:
                early = self.early(features.early)
        return Rows(surface, self.late(features.vectors), early, self.marks(_standard(surface, self.mean, self.scale)))


def _standard(surface: Floats, mean: Floats, scale: Floats) -> Floats:
    standard: Floats = np.clip((surface - mean) / scale, -_MAX_DEVIATION, _MAX_DEVIATION)
    return standard
