"""What somebody probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MAX_LISTED = 8


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A clause that ends an error message: the nearest of *known*, else those that there are."""
    names = sorted(set(known))
    if not names:
        return "there are none yet"
    by_lower = {name.lower(): name for name in names}
    if near := difflib.get_close_matches(given.lower(), by_lower, n=1, cutoff=0.6):
        return f"did you mean {by_lower[near[0]]!r}?"
    listed = ", ".join(names[:_MAX_LISTED])
    return f"known: {listed}, …" if len(names) > _MAX_LISTED else f"known: {listed}"
