"""The modes by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.quoting import quoted
from domain.routing import RoutingDecision
from domain.strategy import DEFAULT_MODE, Strategy
from orchestrator.aggregation.base import AggregationContext, Aggregator
from orchestrator.aggregation.catalogue import AGGREGATORS
from orchestrator.budget import MIN_ANSWER_TOKENS
from orchestrator.modes import chain, contrast, evidence, fast_slow, memory, moa, pdr, plan
from orchestrator.modes.base import Mode
from orchestrator.modes.panel import panel_of
from orchestrator.options import Options, check
from orchestrator.prompts import check_prompts

Make = Callable[[AggregationContext, Aggregator, int], tuple[RoutingDecision, Mode]]
"""Context, aggregator and the calls that the request may still make, to the decision as far as it is carried out, and the mode."""


@dataclass(frozen=True, slots=True)
class ModeKind:
    """One of the modes that a strategy may name."""

    make: Make
    options: Options = field(default_factory=dict)
    """What ``mode_options`` may tell it."""
    aggregates: bool = True
    """Whether the strategy's aggregator is used."""
    recalls: bool = False
    """Whether it is shown solved problems."""


MODES: Mapping[str, ModeKind] = {
    DEFAULT_MODE: ModeKind(panel_of),
    moa.NAME: ModeKind(moa.make, moa.OPTIONS, aggregates=False),
    pdr.NAME: ModeKind(pdr.make, pdr.OPTIONS, aggregates=False),
    chain.NAME: ModeKind(chain.make, chain.OPTIONS, aggregates=False),
    contrast.NAME: ModeKind(contrast.make, contrast.OPTIONS),
    evidence.NAME: ModeKind(evidence.make, evidence.OPTIONS, aggregates=False),
    fast_slow.NAME: ModeKind(fast_slow.make, fast_slow.OPTIONS, aggregates=False),
    plan.NAME: ModeKind(plan.make, plan.OPTIONS, aggregates=False),
    memory.NAME: ModeKind(memory.make, memory.OPTIONS, aggregates=False, recalls=True),
}
"""One for each of ``domain.strategy.MODE_NAMES``."""


def check_strategy(strategy: Strategy) -> None:
    """Raise ``InvalidRequest`` for what every request would be refused for: options that neither the mode nor the aggregator takes,
    prompts that there are not, a quorum or a budget that nothing can meet."""
    kind, aggregator = mode_named(strategy.mode, param="mode"), AGGREGATORS[strategy.aggregator]
    check(strategy.mode_options, {**kind.options, **(aggregator.options if kind.aggregates else {})}, field="mode_options")
    check_prompts(strategy.prompts)
    if strategy.alone_from_accuracy is not None and strategy.mode != DEFAULT_MODE:
        raise InvalidRequest(
            f"alone_from_accuracy: the mode {strategy.mode!r} makes several calls in any case; leave it out, or use {DEFAULT_MODE!r}",
            param="alone_from_accuracy",
        )
    tokens = strategy.budget.max_tokens
    if tokens is not None and tokens < MIN_ANSWER_TOKENS:
        raise InvalidRequest(f"budget.max_tokens: {tokens} leave no room for one answer of {MIN_ANSWER_TOKENS}", param="budget.max_tokens")
    if strategy.quorum is not None and strategy.quorum > strategy.pick.k:
        raise InvalidRequest(
            f"quorum: {strategy.quorum} candidates cannot answer where at most {strategy.pick.k} are asked (pick.k)", param="quorum"
        )


def mode_named(name: str, *, param: str = "consilium.mode") -> ModeKind:
    """Raises ``InvalidRequest`` that names the known ones."""
    if name not in MODES:
        hint = did_you_mean(name, tuple(MODES), always_list=True)
        raise InvalidRequest(f"unknown mode {quoted(name)}; {hint}", param=param)
    return MODES[name]
