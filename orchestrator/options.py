"""What modes and aggregators can be told: options by name, checked when a strategy is stored and when a request brings some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.quoting import quoted


@dataclass(frozen=True, slots=True)
class Option:
    """One option. Its default says of which type it is; an expert's id is None by default."""

    default: int | float | bool | str | Mapping[str, float] | None
    minimum: float = 0
    maximum: float = 0
    """Of numbers, both included; of a mapping, how many entries it may have."""
    choices: tuple[str, ...] = ()

    def problem(self, value: object) -> str | None:
        """What is wrong with *value*, for people."""
        match self.default:
            case bool():
                return None if isinstance(value, bool) else "must be true or false"
            case int():
                fits = isinstance(value, int) and not isinstance(value, bool) and self.minimum <= value <= self.maximum
                return None if fits else f"must be a whole number from {self.minimum:g} to {self.maximum:g}"
            case float():
                fits = isinstance(value, int | float) and not isinstance(value, bool) and self.minimum <= value <= self.maximum
                return None if fits else f"must be a number from {self.minimum:g} to {self.maximum:g}"
            case str():
                return None if value in self.choices else f"must be one of {', '.join(self.choices)}"
            case None:
                return None if isinstance(value, str) and value else "must be an expert's id"
            case _:
                fits = (
                    isinstance(value, Mapping)
                    and self.minimum <= len(value) <= self.maximum
                    and all(isinstance(name, str) and name.strip() for name in value)
                    and all(isinstance(weight, int | float) and not isinstance(weight, bool) and weight > 0 for weight in value.values())
                )
                return None if fits else f"must be an object of {self.minimum:g} to {self.maximum:g} names with weights above 0"


Options = Mapping[str, Option]


def check(given: Mapping[str, Any], known: Options, *, field: str) -> None:
    """Raise ``InvalidRequest`` for what of *given* is not *known* or not possible; *field* is where it was given."""
    for name, value in given.items():
        if name not in known:
            hint = did_you_mean(name, tuple(known), always_list=True) if known else "it takes none"
            raise InvalidRequest(f"{field}: unknown option {quoted(name)}; {hint}", param=f"{field}.{name}"[:256])
        if (problem := known[name].problem(value)) is not None:
            raise InvalidRequest(f"{field}.{name} {problem}, not {quoted(str(value))}", param=f"{field}.{name}")


def read(given: Mapping[str, Any], known: Options, name: str) -> Any:
    """The option *name* of *given*, or its default."""
    return given.get(name, known[name].default)
