"""Options of learned routers: a frozen dataclass each, whose fields say what they take. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.quoting import quoted
from routers.options import check_known

Shape = TypeVar("Shape")
_MAX_LISTED = 64
"""Entries that a list or mapping among the options may have: more than any pool has experts."""


class Kind(Protocol):
    """What an option's value may be."""

    def problem(self, value: Any) -> str | None:
        """What is wrong with *value*, to stand behind the option's name; None when nothing is."""
        ...


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number from *low* to *high*, both included; *above* excludes the lower bound."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    whole: bool = False

    def problem(self, value: Any) -> str | None:
        kind = int if self.whole else int | float
        noun = "a whole number" if self.whole else "a number"
        if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
            return f"is {quoted(value)}, it must be {noun}"
        if self.low <= value <= self.high and not (self.above and value == self.low):
            return None
        if self.high == math.inf:
            return f"is {value:g}, it must be {f'above {self.low:g}' if self.above else f'{self.low:g} or more'}"
        return f"is {value:g}, it must be {f'above {self.low:g} and at most' if self.above else f'between {self.low:g} and'} {self.high:g}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of the *names*."""

    names: tuple[str, ...]

    def problem(self, value: Any) -> str | None:
        if value in self.names:
            return None
        return f"is {quoted(value)}; {did_you_mean(str(value), self.names, always_list=True)}"


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def problem(self, value: Any) -> str | None:
        return None if isinstance(value, bool) else f"is {quoted(value)}, it must be true or false"


@dataclass(frozen=True, slots=True)
class ExpertId:
    """An expert's id."""

    def problem(self, value: Any) -> str | None:
        return None if isinstance(value, str) and value else f"is {quoted(value)}, it must be an expert's id"


@dataclass(frozen=True, slots=True)
class Several:
    """A list of values of one kind, not empty."""

    each: Kind

    def problem(self, value: Any) -> str | None:
        if isinstance(value, str) or not isinstance(value, Sequence) or not 0 < len(value) <= _MAX_LISTED:
            return f"is {quoted(value)}, it must be a list of 1 to {_MAX_LISTED} values"
        return next((problem for item in value if (problem := self.each.problem(item))), None)


@dataclass(frozen=True, slots=True)
class PerExpert:
    """An object: expert id to a value of one kind."""

    each: Kind

    def problem(self, value: Any) -> str | None:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            return f"is {quoted(value)}, it must be an object of expert ids and values"
        found = ((key, self.each.problem(item)) for key, item in value.items())
        return next((f"of {quoted(key)} {problem}" for key, problem in found if problem), None)


def option(kind: Kind, default: Any = None) -> Any:
    """A field of an options class. None as *default* means that the router chooses, and may be given."""
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=lambda: dict(default), metadata={"kind": kind})
    return dataclasses.field(default=default, metadata={"kind": kind})


def parse(shape: type[Shape], values: Mapping[str, Any], *, router: str) -> Shape:
    """The options *shape*, a dataclass of ``option`` fields, with *values* over its defaults.

    Raises ``InvalidRequest`` for an unknown name (with the nearest known one) and for a value that the field does not take.
    """
    fields = {field.name: field for field in dataclasses.fields(shape)}  # type: ignore[arg-type]
    check_known(values, fields, router=router)
    given = {}
    for name, value in values.items():
        field = fields[name]
        may_be_none = field.default is None
        problem = None if value is None and may_be_none else field.metadata["kind"].problem(value)
        if problem:
            raise InvalidRequest(f"router option {name!r} {problem}", param=f"router_options.{name}")
        given[name] = tuple(value) if isinstance(value, list) else value
    return shape(**given)
