"""How deep JSON may be nested."""

from __future__ import annotations

from typing import Any

MAX_LEVELS = 128
"""Objects and lists within each other. What is read at 1,000 levels cannot be written again: orjson stops at 254, Python's own
functions at their recursion limit. Half of that leaves room for what goes around it (an answer, a trace, a list of traces)."""


def deeper_than(value: object, max_levels: int) -> bool:
    """Whether objects and lists are nested in *value* more than *max_levels* deep, itself included. Without recursion."""
    level: list[Any] = [value] if isinstance(value, dict | list) else []
    for _ in range(max_levels):
        if not level:
            return False
        level = [item for node in level for item in (node.values() if isinstance(node, dict) else node) if isinstance(item, dict | list)]
    return bool(level)
