"""A strategy in words for its page: what adjusts scores, what bounds it, and what each level of effort changes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domain.effort import EFFORT_NAMES, EffortLevel, EffortRule
from domain.strategy import Strategy
from orchestrator.effort import LEVELS

Facts = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class EffortTold:
    """One level as a strategy takes it."""

    name: str
    told: str
    is_own: bool
    """Whether the strategy has it instead of the built-in one."""


def efforts_of(strategy: Strategy) -> list[EffortTold]:
    """Every level."""
    own = strategy.effort.levels
    return [EffortTold(name, _changes(own.get(name) or LEVELS[name], strategy), name in own) for name in EFFORT_NAMES]


def effort_lead(rule: EffortRule) -> str:
    """Who chooses the level of a request."""
    chosen = "A request chooses with consilium.effort"
    if rule.from_reasoning_effort:
        chosen += ", or with OpenAI's reasoning_effort"
    return f"{chosen}; without that it is {rule.default}." if rule.default else f"{chosen}; without that the strategy stands as it is."


def _changes(level: EffortLevel, strategy: Strategy) -> str:
    k = strategy.pick.k
    told = []
    if level.k is not None and level.k < k:
        told.append("1 expert" if level.k == 1 else f"{level.k} experts at most")
    elif level.k is not None and level.k > k > 1:
        told.append(f"{level.k} experts")
    if level.max_calls is not None and level.max_calls < strategy.max_calls:
        told.append(f"{level.max_calls} calls at most")
    if level.max_tokens is not None:
        told.append(f"{level.max_tokens:,} tokens an answer")
    if level.thinking is not None:
        told.append("no thinking" if level.thinking == "none" else f"thinking {level.thinking}")
    if level.mode is not None and level.mode != strategy.mode:
        told.append(f"mode {level.mode}")
    return ", ".join(told) or "the strategy as it stands"


def adjustments_of(strategy: Strategy) -> Facts:
    """What moves scores, or keeps experts out."""
    rule = strategy.adjustments
    facts = [
        ("only", ", ".join(rule.allow) if rule.allow is not None else ""),
        ("never", ", ".join(rule.deny)),
        ("boost", ", ".join(f"{expert} {by:+g}" for expert, by in rule.boost.items())),
        ("weight of price", f"{rule.price_weight:g}" if rule.price_weight else ""),
        ("weight of load", f"{rule.load_weight:g}" if rule.load_weight else ""),
        ("weight of session", f"{rule.session_weight:g}" if rule.session_weight else ""),
    ]
    return [(name, told) for name, told in facts if told]


def bounds_of(strategy: Strategy) -> Facts:
    """What one request may use, beside calls and seconds."""
    budget = strategy.budget
    facts = [
        ("tokens", budget.max_tokens and f"{budget.max_tokens:,} in all"),
        ("tokens in turn", budget.max_sequential_tokens and f"{budget.max_sequential_tokens:,}"),
        ("price", budget.max_price and f"{budget.max_price:g} US dollars"),
    ]
    return [(name, str(told)) for name, told in facts if told]
