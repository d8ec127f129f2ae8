"""What somebody probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MAX_LISTED = 8
_SAME_WORD = 0.8
"""Similarity (2 × matching letters / all letters) from which two names are taken for one, misspelt: one letter in four to
two in nine are wrong. "maths" and "math" are near; "law" and "lab", "organic chemistry" and "chemistry" are not."""


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


def near_miss(given: str, known: Iterable[str]) -> str | None:
    """The one of *known* that *given* is probably a misspelling of; None when it resembles none of them.

    Case and the characters between words do not count. Stricter than ``did_you_mean``, which only suggests.
    """
    by_letters = {_letters(name): name for name in sorted(set(known), reverse=True)}
    near = difflib.get_close_matches(_letters(given), by_letters, n=1, cutoff=_SAME_WORD)
    return by_letters[near[0]] if near else None


def _letters(name: str) -> str:
    return " ".join(name.lower().replace("-", " ").replace("_", " ").split())
