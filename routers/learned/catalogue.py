"""The learned routers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.quoting import quoted
from routers.learned.base import Estimator
from routers.learned.baselines import FixedBaseline, RandomBaseline
from routers.learned.blend import BlendRouter
from routers.learned.category import CategoryRouter
from routers.learned.neighbours import NeighboursRouter
from routers.learned.npmi import NpmiRouter
from routers.learned.pilot import PilotRouter
from routers.learned.ridge import RidgeRouter
from routers.learned.subspace import SubspaceRouter

Factory = Callable[[Mapping[str, Any]], Estimator]

_SINGLE: Mapping[str, Factory] = {
    NeighboursRouter.name: NeighboursRouter.with_options,
    RidgeRouter.name: RidgeRouter.with_options,
    CategoryRouter.name: CategoryRouter.with_options,
    PilotRouter.name: PilotRouter.with_options,
    SubspaceRouter.name: SubspaceRouter.with_options,
    NpmiRouter.name: NpmiRouter.with_options,
    RandomBaseline.name: RandomBaseline.with_options,
    FixedBaseline.name: FixedBaseline.with_options,
}
ESTIMATORS: Mapping[str, Factory] = {BlendRouter.name: partial(BlendRouter.with_options, catalogue=_SINGLE), **_SINGLE}
"""Name to what makes an estimator of options."""


def estimator(name: str, options: Mapping[str, Any] | None = None) -> Estimator:
    """The router *name* with *options*, before it has seen anything.

    Raises ``InvalidRequest`` for an unknown name or option (with the nearest known one) and for a value that an option does not take.
    """
    if name not in ESTIMATORS:
        hint = did_you_mean(name, sorted(ESTIMATORS), always_list=True)
        raise InvalidRequest(f"unknown learned router {quoted(name)}; {hint}", param="consilium.router")
    return ESTIMATORS[name](options or {})


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise ``InvalidRequest`` for an unknown router or option and for a value that an option does not take."""
    estimator(name, options)
