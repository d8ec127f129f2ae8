"""What a comparison of routers needs from the routers. They satisfy these structurally."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from domain.outcomes import OutcomeTable
from evaluation.comparison.arms import Floats

Features = Any
"""What routers see of questions. The comparison only hands it on."""
Told = Callable[[int, int], None]
"""Hears how many of how many are done."""


class FittedRouter(Protocol):
    """A router that has seen its training questions."""

    def predict(self, features: Features) -> Floats:
        """(N, E) expected scores, the columns of the table that it was fitted on."""
        ...

    def categories(self, features: Features) -> Sequence[str] | None:
        """(N) the category that it takes each question for; None for a router that does not think in categories."""
        ...


class RouterFamily(Protocol):
    """All routers that can be fitted on outcomes, by name."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def version(self) -> str:
        """Changes with anything that changes what they predict: code, encoder, options."""
        ...

    def features(self, texts: Sequence[str], told: Told) -> Features:
        """Of each of *texts*, in order. What takes long is kept between runs."""
        ...

    def select(self, features: Features, rows: Sequence[int]) -> Features:
        """Those rows, in this order."""
        ...

    def fit(self, name: str, features: Features, table: OutcomeTable, *, seed: int) -> FittedRouter:
        """Raises ``InvalidRequest`` when *table* is too small for it or lacks what it needs."""
        ...
