"""From a model name to what it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from domain.access import PUBLIC, Access
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


def model_names(snapshot: RegistrySnapshot, access: Access = PUBLIC) -> list[str]:
    """Every name that a request of a caller with *access* may use as ``model``: ``auto``, strategies, experts."""
    strategies = sorted(f"{STRATEGY_PREFIX}{s.id}" for s in snapshot.strategies.values() if s.enabled and access.may_use_strategy(s.id))
    experts = sorted(card.id for card in snapshot.experts.values() if card.enabled and access.sees(card))
    default = [DEFAULT_STRATEGY] if access.may_use_strategy(DEFAULT_STRATEGY) else []
    return [*default, *strategies, *experts]


def is_model_name(name: str, snapshot: RegistrySnapshot) -> bool:
    """Whether *name* stands for something in *snapshot*, whoever may use it."""
    name = name.removesuffix(_LATEST)
    if name == DEFAULT_STRATEGY or name == STRATEGY_PREFIX + DEFAULT_STRATEGY or name in snapshot.experts:
        return True
    return name.startswith(STRATEGY_PREFIX) and name.removeprefix(STRATEGY_PREFIX) in snapshot.strategies


def resolve(model: str, snapshot: RegistrySnapshot, access: Access = PUBLIC) -> Target:
    """What *model* stands for, to a caller with *access*.

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
        strategy = snapshot.strategies.get(wanted) if access.may_use_strategy(wanted) else None
        if strategy is None and wanted == DEFAULT_STRATEGY and access.may_use_strategy(wanted):
            strategy = Strategy(id=DEFAULT_STRATEGY)
        if strategy is not None and strategy.enabled:
            return Target(strategy)
        raise ModelNotFound(_unknown(model, snapshot, access, disabled=strategy is not None), param="model")
    card = snapshot.experts.get(name)
    if card is not None and not access.sees(card):
        card = None
    if card is not None and card.enabled:
        return Target(_strategy_for_one(card.id, card.timeout_s), card)
    raise ModelNotFound(_unknown(model, snapshot, access, disabled=card is not None), param="model")


@lru_cache(maxsize=4096)
def _strategy_for_one(expert_id: str, timeout_s: float) -> Strategy:
    """Made once for each expert: every request for one by name needs it, twice."""
    return Strategy(id=expert_id, router="explicit", aggregator="first", timeout_s=timeout_s + LOAD_WAIT_S)


def _unknown(model: str, snapshot: RegistrySnapshot, access: Access, *, disabled: bool) -> str:
    state = "is disabled" if disabled else "does not exist"
    return f"the model {model!r} {state}; {did_you_mean(model, model_names(snapshot, access), max_suggested=3)}"
