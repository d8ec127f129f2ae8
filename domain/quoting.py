"""What callers sent, as messages may repeat it: short, however large it is. Pure."""

from __future__ import annotations

import reprlib

MAX_QUOTED = 60
"""Letters of one quoted value: enough to recognise it, and a message stays one that a person reads."""

_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxother = 3, MAX_QUOTED
_REPR.maxdict = _REPR.maxlist = _REPR.maxtuple = _REPR.maxset = _REPR.maxfrozenset = 10
_REPR.maxstring = _REPR.maxlong = 2 * MAX_QUOTED


def quoted(value: object) -> str:
    """*value* as Python writes it, cut to ``MAX_QUOTED`` letters. Looks at no more of it than is shown."""
    return shortened(repr(value[: MAX_QUOTED + 1]) if isinstance(value, str) else _REPR.repr(value), MAX_QUOTED)


def shortened(text: str, max_letters: int) -> str:
    """*text*, cut to *max_letters* with an ellipsis where it is longer."""
    return text if len(text) <= max_letters else text[: max_letters - 3] + "..."
