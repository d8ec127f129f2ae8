"""A strategy: a named recipe, and a virtual model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from domain.routing import PickRule

AggregatorName = Literal["fuse", "vote", "first"]
AGGREGATOR_NAMES: tuple[str, ...] = get_args(AggregatorName)

_EXPERT_OPTIONS = ("keyword_expert", "experts")
"""Router options whose value is an expert's id, or a list of them. Every router keeps to these names."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """Router + how many experts + aggregator + budget. ``consilium/<id>`` as a model name."""

    id: str
    description: str = ""
    router: str = "skills"
    router_options: Mapping[str, Any] = field(default_factory=dict)
    pick: PickRule = PickRule()
    aggregator: str = "fuse"
    """``fuse``, ``vote`` or ``first``; used when more than one candidate is left."""
    aggregator_expert: str | None = None
    """A fixed fusing expert; None lets the measured aggregator profile choose."""
    fallback_expert: str | None = None
    max_calls: int = 8
    """Hard cap on calls for one request: the router's own, the candidates' and the aggregator's."""
    timeout_s: float = 120.0
    enabled: bool = True
    version: int = 1

    def named_experts(self) -> dict[str, str]:
        """The id of every expert that is named, by the field that names it ("router_options.experts[0]"). They have to be
        there as long as the strategy is. A value that is no id is left out: the router refuses it."""
        values: dict[str, Any] = {"aggregator_expert": self.aggregator_expert, "fallback_expert": self.fallback_expert}
        for option in _EXPERT_OPTIONS:
            value, path = self.router_options.get(option), f"router_options.{option}"
            if isinstance(value, list | tuple):
                values |= {f"{path}[{position}]": item for position, item in enumerate(value)}
            else:
                values[path] = value
        return {path: value for path, value in values.items() if isinstance(value, str)}
