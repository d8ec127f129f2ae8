"""Forms as browsers send them, and what the API says of them, field by field. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from domain.errors import InvalidRequest

MAX_FIELDS = 2000
"""Fields of one form: the largest, a choice among a thousand experts, stays far below."""
MAX_DIGITS = 18
"""Of a whole number; longer ones fit into no field of a database."""
_SAYS = re.compile(r"^([A-Za-z_][\w.\[\]-]*): (.*)$")


def finite(text: str) -> float:
    """The number that *text* is. Raises ``ValueError`` where it is none, or one that no JSON can hold."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    return number


def whole(text: str) -> int | None:
    """The number that *text* is, without a sign; None where it is none, or one that nobody means."""
    return int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else None


@dataclass(frozen=True, slots=True)
class Form:
    """What a form holds, in its order; a name may stand more than once."""

    pairs: Sequence[tuple[str, str]] = ()

    def __contains__(self, name: str) -> bool:
        return any(found == name for found, _ in self.pairs)

    def text(self, name: str, default: str = "") -> str:
        """The last value of *name*, without blanks around it; line ends as one character."""
        values = self.all(name)
        return values[-1].replace("\r\n", "\n").strip() if values else default

    def all(self, name: str) -> list[str]:
        return [value for found, value in self.pairs if found == name]

    def lines(self, name: str) -> list[str]:
        """The lines of a text that have something on them."""
        return [line.strip() for line in self.text(name).split("\n") if line.strip()]

    def names(self, name: str) -> list[str]:
        """What stands between commas or on lines of its own."""
        return [part.strip() for part in re.split(r"[,\n]", self.text(name)) if part.strip()]


def parse_form(body: bytes) -> Form:
    """Raises ``InvalidRequest`` when it has too many fields, or is no text."""
    try:
        return Form(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"))
    except ValueError as error:
        raise InvalidRequest("the form cannot be read: it has too many fields, or is no text") from error


@dataclass(slots=True)
class Problems:
    """What is wrong with a form: beside the field, or above it all."""

    by_field: dict[str, str] = field(default_factory=dict)
    general: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.by_field or self.general)

    def of(self, name: str) -> str | None:
        return self.by_field.get(name)

    def add(self, name: str, message: str) -> None:
        """Say *message* of the field *name*; the first that is said stands."""
        self.by_field.setdefault(name, message)


def problems_of(message: str, param: str | None, fields: Iterable[str], *, aliases: Mapping[str, str] | None = None) -> Problems:
    """The lines of an error of the API, each with the one of *fields* that it speaks of; *aliases* are fields by other names.

    A path like ``price.prompt`` belongs to the field of that name, or to ``price``.
    """
    known, found = set(fields), Problems()

    def field_at(path: str) -> str | None:
        plain = re.sub(r"\[\d+\]", "", path)
        while plain:
            name = (aliases or {}).get(plain, plain)
            if name in known:
                return name
            plain = plain.rpartition(".")[0]
        return None

    for line in message.split("\n"):
        match = _SAYS.match(line)
        name = field_at(match[1]) if match else None
        if match and name is not None:
            rest = re.sub(r"^\[\d+\]$", "", match[1].removeprefix(name)).lstrip(".")
            found.add(name, f"{rest}: {match[2]}" if rest else match[2])
        elif line.strip():
            found.general.append(line.strip())
    if len(found.general) == 1 and not found.by_field and param is not None and (name := field_at(param)) is not None:
        found.add(name, found.general.pop())
    return found
