"""Values that people wrote, without what may be a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_MAX_LEVELS = 32
_NAMES = re.compile(r"(?:^|[_\-]|(?<=[a-z0-9])(?=[A-Z]))(?i:(?:api)?key|secret|password|passwd|token|authorization|credential)(?i:s?)$")
"""Fields whose text is a secret, unless it only says where one is ("env:NAME")."""
_TEXTS = re.compile(
    r"\b(?:(?:ck|sk|rk|pk|ghp|xox[bp])[-_][A-Za-z0-9_\-]{12,}|hf_[A-Za-z0-9]{30,})|(?i:bearer\s+)[^\s\"',;]{8,}|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)
"""Tokens of well-known shapes, bearer headers, and passwords in addresses."""
_NAMED = frozenset({"id", "model", "adapter_of"})
"""Fields that name what everybody may see, and are needed letter by letter to find it or to put it back."""


def without_secrets(value: Any, *, depth: int = _MAX_LEVELS) -> Any:
    """*value* (JSON) with ``HIDDEN`` in the place of every text that is, or looks like, a secret."""
    match value:
        case str():
            return _TEXTS.sub(HIDDEN, value)
        case Mapping() if depth:
            return {
                key: inner
                if key in _NAMED and isinstance(inner, str)
                else _hidden(inner)
                if _is_secret(key, inner)
                else without_secrets(inner, depth=depth - 1)
                for key, inner in value.items()
            }
        case list() | tuple() if depth:
            return [without_secrets(inner, depth=depth - 1) for inner in value]
        case Mapping() | list() | tuple():
            return HIDDEN
        case _:
            return value


def has_hidden(value: Any) -> bool:
    """Whether something was hidden in *value*, as ``without_secrets`` returned it."""
    match value:
        case str():
            return HIDDEN in value
        case Mapping():
            return any(has_hidden(inner) for inner in value.values())
        case list() | tuple():
            return any(has_hidden(inner) for inner in value)
        case _:
            return False


def _is_secret(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, str) and _NAMES.search(name) is not None


def _hidden(value: str) -> str:
    return value if value.startswith("env:") else HIDDEN
