"""Fields that a command was given as ``FIELD=VALUE``. Pure but for the error that it raises."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from api.cli.failures import bad_input


def with_fields(card: dict[str, Any], assignments: Iterable[str], *, like: str = "--set serving.pinned=true") -> dict[str, Any]:
    """*card* with each of *assignments*: ``FIELD=VALUE``, or ``OBJECT.FIELD=VALUE`` for a field inside an object. *like* is what one looks
    like, for messages.

    A value is JSON; what is none is a text. Exits with status 2 when one is no assignment, sets what is set already, or goes into what is
    no object. Which fields there are and what they take is the service's to say.
    """
    filled = dict(card)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        names = path.strip().split(".")
        if not equals or not all(names):
            raise bad_input(f"{like.partition(' ')[0]} takes FIELD=VALUE, such as {like}, and not {assignment!r}")
        _put(filled, names, _value(text), path.strip())
    return filled


def _put(card: dict[str, Any], names: list[str], value: Any, path: str) -> None:
    *outer, last = names
    place = card
    for name in outer:
        inner = place.get(name, {})
        if not isinstance(inner, dict):
            raise bad_input(f"{path}: {name} is given as a value already, and has no fields")
        place[name] = dict(inner)
        place = place[name]
    if last in place:
        raise bad_input(f"{path} is given twice")
    place[last] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return text


def _no_json(name: str) -> Any:
    """NaN and Infinity: Python reads them, and a request cannot say them."""
    raise ValueError(name)
