"""What somebody probably meant by a name that does not exist. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

SUGGESTED = 0.6
"""Similarity (2 × matching letters / all letters) from which a name is worth suggesting: "lab" for "law" is."""
MISSPELT = 0.8
"""Similarity from which two names are taken for one, misspelt: one letter in four to two in nine are wrong. "maths" and
"math" are near; "law" and "lab", "organic chemistry" and "chemistry" are not."""
_MAX_LISTED = 20
_MAX_COMPARED = 256
"""Letters of a given name that are compared: comparing takes the product of both lengths, and no name is longer."""


def nearest(given: str, known: Iterable[str], *, similarity: float = SUGGESTED) -> str | None:
    """The one of *known* that *given* resembles most; None when none has the *similarity*, in [0, 1].

    Case and the characters between words (space, dash, underscore) do not count.
    """
    return next(iter(_ranked(given, known, 1, similarity)), None)


def did_you_mean(given: str, known: Sequence[str], *, max_suggested: int = 1, always_list: bool = False) -> str:
    """The clause that ends a message about the unknown name *given*: ``did you mean 'a' or 'b'?`` with at most
    *max_suggested* names, else ``known are a, b, c`` in the order of *known*, else ``there are none yet``.

    With *always_list* the known names follow a suggestion too. A long list is cut, and says how many more there are.
    """
    if not known:
        return "there are none yet"
    listed = ", ".join(known[:_MAX_LISTED]) + (f" and {len(known) - _MAX_LISTED} more" if len(known) > _MAX_LISTED else "")
    suggested = _ranked(given, known, max_suggested, SUGGESTED)
    if not suggested:
        return f"known are {listed}"
    return f"did you mean {' or '.join(map(repr, suggested))}?" + (f" Known are {listed}" if always_list else "")


def _ranked(given: str, known: Iterable[str], limit: int, similarity: float) -> list[str]:
    # In reverse, so that of names that differ in nothing that counts the first of the alphabet is taken.
    by_letters = {_letters(name): name for name in sorted(known, reverse=True)}
    return [by_letters[letters] for letters in difflib.get_close_matches(_letters(given[:_MAX_COMPARED]), by_letters, limit, similarity)]


def _letters(name: str) -> str:
    return " ".join(name.lower().replace("-", " ").replace("_", " ").split())
