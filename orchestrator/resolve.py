"""From a model name to what it stands for."""

from __future__ import annotations

from dataclasses import dataclass

from domain.errors import ModelNotFound
from domain.experts import ExpertCard
from domain.nearest import did_you_mean
from domain.registry import RegistrySnapshot
from domain.strategy import Strategy

DEFAULT_STRATEGY = "auto"
STRATEGY_PREFIX = "consilium/"
_LATEST = ":latest"
LOAD_WAIT_S = 300.0
"""What a request for one expert by name has beside the card's time, which is for running: its server may have to be loaded first, and
others may have to make room for it. A server that is up costs none of it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Either one expert, asked for by name, or a strategy."""

    strategy: Strategy
    expert: ExpertCard | None = None


def model_names(snapshot: RegistrySnapshot, labels: frozenset[str] = frozenset()) -> list[str]:
    """Every name that a request with *labels* may use as ``model``: ``auto``, strategies, experts."""
    strategies = sorted(f"{STRATEGY_PREFIX}{s.id}" for s in snapshot.strategies.values() if s.enabled)
    experts = sorted(card.id for card in snapshot.experts.values() if card.enabled and card.labels <= labels)
    return [DEFAULT_STRATEGY, *strategies, *experts]


def resolve(model: str, snapshot: RegistrySnapshot, labels: frozenset[str] = frozenset()) -> Target:
    """What *model* stands for, to a caller who holds *labels*.

    1. ``auto`` is the strategy of that name (a built-in one when the registry has none).
    2. ``consilium/<id>`` is that strategy.
    3. Anything else is an expert's id.

    A trailing ``:latest`` is dropped, since some clients append it. Raises ``ModelNotFound`` with the nearest names.
    """
    name = model.removesuffix(_LATEST)
    if name == DEFAULT_STRATEGY:
        name = STRATEGY_PREFIX + DEFAULT_STRATEGY
    if name.startswith(STRATEGY_PREFIX):
        wanted = name.removeprefix(STRATEGY_PREFIX)
        strategy = snapshot.strategies.get(wanted)
        if strategy is None and wanted == DEFAULT_STRATEGY:
            strategy = Strategy(id=DEFAULT_STRATEGY)
        if strategy is not None and strategy.enabled:
            return Target(strategy)
        raise ModelNotFound(_unknown(model, snapshot, labels, disabled=strategy is not None), param="model")
    card = snapshot.experts.get(name)
    if card is not None and not card.labels <= labels:
        card = None
    if card is not None and card.enabled:
        return Target(Strategy(id=card.id, router="explicit", aggregator="first", timeout_s=card.timeout_s + LOAD_WAIT_S), card)
    raise ModelNotFound(_unknown(model, snapshot, labels, disabled=card is not None), param="model")


def _unknown(model: str, snapshot: RegistrySnapshot, labels: frozenset[str], *, disabled: bool) -> str:
    state = "is disabled" if disabled else "does not exist"
    return f"the model {model!r} {state}; {did_you_mean(model, model_names(snapshot, labels), max_suggested=3)}"
