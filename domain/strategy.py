"""A strategy: a named recipe, and a virtual model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from domain.adjustments import AS_SCORED, RoutingAdjustments
from domain.budget import UNBOUNDED, Budget
from domain.effort import AS_IT_STANDS, EffortRule
from domain.routing import PickRule

AggregatorName = Literal["fuse", "vote", "weighted_vote", "judge", "first"]
AGGREGATOR_NAMES: tuple[str, ...] = get_args(AggregatorName)

ModeName = Literal["panel", "moa", "pdr", "chain", "contrast", "evidence", "fast_slow", "plan", "memory"]
MODE_NAMES: tuple[str, ...] = get_args(ModeName)
DEFAULT_MODE = "panel"

_EXPERT_OPTIONS = (
    "keyword_expert",
    "menu_expert",
    "instruction_expert",
    "judge_expert",
    "weak_expert",
    "planner_expert",
    "generalist",
    "experts",
)
"""Options whose value is an expert's id, or a list of them. Every router and every mode keeps to these names."""
_INNER_OPTIONS = "base_options"
"""Router option that holds the options of another router."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """Router + how many experts + mode + aggregator + budget. ``consilium/<id>`` as a model name."""

    id: str
    description: str = ""
    router: str = "skills"
    router_options: Mapping[str, Any] = field(default_factory=dict)
    pick: PickRule = PickRule()
    adjustments: RoutingAdjustments = AS_SCORED
    """Who may be asked, and what is laid over the router's scores."""
    mode: str = DEFAULT_MODE
    """How the experts work together, one of ``MODE_NAMES``. A router that asks them one after the other (``cascade``) decides itself."""
    mode_options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the mode and of the aggregator."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Template name to text, instead of the one that is built in."""
    quorum: int | None = None
    """So many candidates are enough: who has not answered by then is given up. None: all are waited for."""
    candidate_timeout_s: float | None = None
    """Longest wait for one candidate; None: as long as the request has."""
    aggregator: str = "fuse"
    """One of ``AGGREGATOR_NAMES``; used when more than one candidate is left."""
    aggregator_expert: str | None = None
    """A fixed fusing expert; None lets the measured aggregator profile choose."""
    fallback_expert: str | None = None
    max_calls: int = 8
    """Hard cap on calls for one request: the router's own, the candidates' and the aggregator's."""
    timeout_s: float = 120.0
    hedge_after_s: float | None = None
    """Silence of the only expert that was chosen after which the next best is asked as well; None: never."""
    budget: Budget = UNBOUNDED
    alone_from_accuracy: float | None = None
    """Measured share of right answers, at every skill of the query, from which the best of several experts is asked alone. None: all that
    were selected are asked, whatever is known of the best."""
    shed_from_load: float | None = None
    """Load, as calls that run and wait against what an expert takes at once, from which a panel shrinks step by step. None: never."""
    effort: EffortRule = AS_IT_STANDS
    """How much a request is worth, where it says so or the strategy does."""
    enabled: bool = True
    version: int = 1

    def named_experts(self) -> dict[str, str]:
        """The id of every expert that is named, by the field that names it ("router_options.experts[0]"). They have to be
        there as long as the strategy is. A value that is no id is left out: the router refuses it."""
        values: dict[str, Any] = {"aggregator_expert": self.aggregator_expert, "fallback_expert": self.fallback_expert}
        values |= _named_in(self.router_options, "router_options")
        values |= _named_in(self.mode_options, "mode_options")
        values |= {f"adjustments.{path}": expert_id for path, expert_id in self.adjustments.named_experts().items()}
        return {path: value for path, value in values.items() if isinstance(value, str)}


def experts_in_options(options: Mapping[str, Any]) -> dict[str, str]:
    """The id of every expert that a router's or a mode's *options* name, by the option ("experts[0]")."""
    return {path.removeprefix("."): value for path, value in _named_in(options, "").items() if isinstance(value, str)}


def _named_in(options: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for option in _EXPERT_OPTIONS:
        value, path = options.get(option), f"{prefix}.{option}"
        if isinstance(value, list | tuple):
            values |= {f"{path}[{position}]": item for position, item in enumerate(value)}
        else:
            values[path] = value
    if isinstance(inner := options.get(_INNER_OPTIONS), Mapping):
        values |= _named_in(inner, f"{prefix}.{_INNER_OPTIONS}")
    return values
