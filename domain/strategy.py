"""A strategy: a named recipe, and a virtual model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.routing import PickRule


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
    """Hard cap on calls for one request, aggregator included."""
    timeout_s: float = 120.0
    enabled: bool = True
    version: int = 1
