"""Which metrics and labels a PromQL expression names, as far as the dashboard and the alerts need it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_KEYWORDS = frozenset("and or unless bool on ignoring group_left group_right by without offset inf nan".split())
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)?\s*\{([^}]*)\}")
_NAME = re.compile(r"(?<![\w:$])([A-Za-z_:][A-Za-z0-9_:]*)(?!\s*\(|[\w:])")


@dataclass(frozen=True)
class Named:
    """What an expression names."""

    metrics: dict[str, set[str]] = field(default_factory=dict)
    """Each metric with the labels that it is matched by."""
    grouping: set[str] = field(default_factory=set)
    """Labels that are grouped by."""


def named_in(expression: str) -> Named:
    """What *expression* names. Durations, numbers, functions and keywords are none."""
    found = Named()
    rest = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    for labels in _GROUPING.findall(rest):
        found.grouping.update(label.strip() for label in labels.split(",") if label.strip())
    rest = _GROUPING.sub(" ", rest)
    for metric, matchers in _SELECTOR.findall(rest):
        found.metrics.setdefault(metric, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
    rest = re.sub(r"\[[^\]]*\]", " ", _SELECTOR.sub(" ", rest))
    for metric in _NAME.findall(rest):
        if metric not in _KEYWORDS:
            found.metrics.setdefault(metric, set())
    return found
