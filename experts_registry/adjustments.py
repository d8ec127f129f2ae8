"""Adjustments of a strategy as a JSON object and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domain.adjustments import AS_SCORED, RoutingAdjustments


def adjustments_to_object(adjustments: RoutingAdjustments) -> dict[str, Any]:
    """What is not as usual."""
    found: dict[str, Any] = {
        "allow": None if adjustments.allow is None else list(adjustments.allow),
        "deny": list(adjustments.deny) or None,
        "boost": dict(adjustments.boost) or None,
        "price_weight": adjustments.price_weight or None,
        "load_weight": adjustments.load_weight or None,
        "session_weight": adjustments.session_weight or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def adjustments_from_object(found: Mapping[str, Any]) -> RoutingAdjustments:
    """What ``adjustments_to_object`` was given."""
    if not found:
        return AS_SCORED
    lists = {name: tuple(found[name]) for name in ("allow", "deny") if name in found}
    return RoutingAdjustments(**{**found, **lists})
