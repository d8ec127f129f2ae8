"""What the recommended router (``routers.learned.blend``) may be told. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.quoting import quoted
from routers.learned.options import Flag, Number, option, parse

OWN = ("kinds", "gated", "forest", "wording")
DEFAULT = ("gated", "forest", "wording")
"""The kinds' means are in all of them."""
_MAX_COMPONENTS = 12


@dataclass(frozen=True, slots=True)
class _Names:
    """A list of components."""

    def problem(self, value: Any) -> str | None:
        if isinstance(value, str) or not isinstance(value, Sequence) or not 0 < len(value) <= _MAX_COMPONENTS:
            return f"is {quoted(value)}, it must be a list of 1 to {_MAX_COMPONENTS} components"
        if not all(isinstance(name, str) for name in value) or len(set(value)) < len(value):
            return f"is {quoted(value)}, it must be a list of different names"
        return None


@dataclass(frozen=True, slots=True)
class _Weights:
    """An object of components and weights."""

    def problem(self, value: Any) -> str | None:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            return f"is {quoted(value)}, it must be an object of components and weights"
        found = ((name, Number(0).problem(weight)) for name, weight in value.items())
        return next((f"of {quoted(name)} {problem}" for name, problem in found if problem), None)


@dataclass(frozen=True, slots=True)
class _Objects:
    """An object of components and their options."""

    def problem(self, value: Any) -> str | None:
        if not isinstance(value, Mapping) or not all(isinstance(inner, Mapping) for inner in value.values()):
            return f"is {quoted(value)}, it must be an object of components, each with an object of options"
        return None


@dataclass(frozen=True, slots=True)
class BlendOptions:
    components: tuple[str, ...] = option(_Names(), DEFAULT)
    """Any of ``kinds``, ``gated``, ``forest``, ``wording`` and the routers of the catalogue."""
    weights: Mapping[str, float] | None = option(_Weights())
    """None: learned by cross-validation."""
    component_options: Mapping[str, Mapping[str, Any]] = option(_Objects(), {})
    """Of routers of the catalogue."""
    trees: int = option(Number(1, 1000, whole=True), 150)
    """Of ``forest``; ``wording`` has two thirds of them. A decision's time grows with them."""
    folds: int = option(Number(2, 10, whole=True), 3)
    """That routers of the catalogue are judged by."""
    shrink_unfamiliar: bool = option(Flag(), True)
    """Whether a query unlike all training questions goes to who is best everywhere (``routers.learned.familiarity``)."""


def parsed(values: Mapping[str, Any], *, router: str, others: Sequence[str]) -> BlendOptions:
    """*values* for *router*, whose components may also be *others*. Raises ``InvalidRequest`` for what they do not take."""
    options = parse(BlendOptions, values, router=router)
    known = (*OWN, *others)
    for name in options.components:
        if name not in known:
            raise _invalid("components", f"names {quoted(name)}; {did_you_mean(name, known, always_list=True)}")
    for field in ("weights", "component_options"):
        for name in getattr(options, field) or {}:
            if name not in options.components:
                raise _invalid(field, f"names {quoted(name)}, which is none of the components {', '.join(options.components)}")
    if unsuitable := [name for name in options.component_options if name in OWN]:
        raise _invalid("component_options", f"names {quoted(unsuitable[0])}, which takes no options")
    if options.weights is not None and not any(options.weights.values()):
        raise _invalid("weights", "must have one above 0")
    return options


def _invalid(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"router option {name!r} {problem}", param=f"router_options.{name}")
