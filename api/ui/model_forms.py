"""Forms made of the models that the API reads: a field that a model gains stands in its form, with the model's own words beside it.

Pure. Every value is text until the model has read it: what is wrong is said by the same code that a program's request meets.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from api.ui.forms import Form, Problems, finite

Json = dict[str, Any]
_UNIONS = (Union, types.UnionType)


class Kind(StrEnum):
    """How a field is filled in."""

    TEXT = "text"
    WHOLE = "whole"
    NUMBER = "number"
    FLAG = "flag"
    MAYBE = "maybe"
    """Yes, no, or left to the service."""
    CHOICE = "choice"
    CHOICES = "choices"
    LINES = "lines"
    """One value a line."""
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a form. ``name`` is its path in the body: ``price.prompt``."""

    name: str
    label: str
    kind: Kind
    help: str = ""
    options: Sequence[str] = ()
    default: Any = None
    required: bool = False


def fields_of(model: type[BaseModel], *, leave_out: Iterable[str] = (), prefix: str = "") -> dict[str, Field]:
    """The fields of *model* by path, in its order; those of models in it after their own names."""
    found: dict[str, Field] = {}
    left_out = set(leave_out)
    for name, info in model.model_fields.items():
        path = prefix + name
        if path in left_out:
            continue
        inner = _plain(info.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= fields_of(inner, leave_out=left_out, prefix=f"{path}.")
            continue
        kind, options = _kind_of(info.annotation)
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        words = (info.description or "").replace("``", "").replace("\n", " ").strip()
        found[path] = Field(path, _label(path), kind, words, options, default, info.is_required())
    return found


def _label(path: str) -> str:
    words = path.rpartition(".")[2].replace("_", " ")
    for unit, told in ((" s", " (seconds)"), (" mb", " (MB)"), (" gb", " (GB)"), (" b", " (billions)")):
        if words.endswith(unit):
            words = words.removesuffix(unit) + told
    return {"id": "Id", "base url": "Base URL", "api key": "API key", "gpus": "GPUs"}.get(words, words[:1].upper() + words[1:])


def _plain(annotation: Any) -> Any:
    """*annotation* without what only checks it, and without None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in _UNIONS:
        rest = [part for part in get_args(annotation) if part is not type(None)]
        return _plain(rest[0]) if len(rest) == 1 else str
    return annotation


def _is_optional(annotation: Any) -> bool:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_origin(annotation) in _UNIONS and type(None) in get_args(annotation)


def _kind_of(annotation: Any) -> tuple[Kind, tuple[str, ...]]:
    inner = _plain(annotation)
    if get_origin(inner) is Literal:
        return Kind.CHOICE, get_args(inner)
    if get_origin(inner) in {list, tuple, set, frozenset}:
        item = _plain(get_args(inner)[0])
        return (Kind.CHOICES, tuple(item)) if isinstance(item, type) and issubclass(item, StrEnum) else (Kind.LINES, ())
    if get_origin(inner) is dict or inner is dict:
        return Kind.JSON, ()
    if isinstance(inner, type) and issubclass(inner, StrEnum):
        return Kind.CHOICE, tuple(inner)
    if inner is bool:
        return (Kind.MAYBE if _is_optional(annotation) else Kind.FLAG), ()
    return {int: Kind.WHOLE, float: Kind.NUMBER}.get(inner, Kind.TEXT), ()


def shown(fields: Mapping[str, Field], view: Mapping[str, Any]) -> Json:
    """What stands in the form for *view*, a body of the API; defaults where it says nothing."""
    return {name: _shown(field, _at(view, name, field.default)) for name, field in fields.items()}


def given(fields: Mapping[str, Field], form: Form) -> Json:
    """What stands in the form when it comes back refused: as it was filled in."""
    found: Json = {}
    for name, field in fields.items():
        match field.kind:
            case Kind.FLAG:
                found[name] = name in form
            case Kind.CHOICES:
                found[name] = form.all(name)
            case _:
                found[name] = form.text(name)
    return found


def body_of(fields: Mapping[str, Field], form: Form) -> tuple[Json, Problems]:
    """What *form* says, as a body for the API, and what cannot even be asked. An empty field is left out: its default counts."""
    body: Json = {}
    problems = Problems()
    for name, field in fields.items():
        try:
            value = _value(field, form)
        except ValueError as error:
            problems.add(name, str(error))
            continue
        if value is not None:
            _put(body, name, value)
        elif field.required:
            problems.add(name, "is missing")
    return body, problems


def _value(field: Field, form: Form) -> Any:
    text = form.text(field.name)
    match field.kind:
        case Kind.FLAG:
            return field.name in form
        case Kind.CHOICES:
            return form.all(field.name)
        case Kind.LINES:
            return form.lines(field.name) or None
        case Kind.MAYBE:
            return {"yes": True, "no": False}.get(text)
        case Kind.JSON:
            return _json(text)
        case Kind.WHOLE | Kind.NUMBER if text:
            return _number(text)
        case _:
            return text or None


def _number(text: str) -> Any:
    """A number where *text* is one; else the text, for the API to say what it wants. Raises ``ValueError`` for what is not finite."""
    for read in (int, float):
        try:
            number = read(text)
        except ValueError:
            continue
        return number if isinstance(number, int) else finite(text)
    return text


def _json(text: str) -> Any:
    if not text:
        return None
    try:
        found = json.loads(text, parse_constant=finite, parse_float=finite)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair can be written in JSON, and not sent
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from None
    return found


def _shown(field: Field, value: Any) -> Any:
    match field.kind:
        case Kind.FLAG:
            return bool(value)
        case Kind.CHOICES:
            return [str(item) for item in value or ()]
        case Kind.LINES:
            return "\n".join(str(item) for item in value or ())
        case Kind.MAYBE:
            return "" if value is None else "yes" if value else "no"
        case Kind.JSON:
            return json.dumps(value, indent=2, ensure_ascii=False) if value else ""
        case Kind.NUMBER:
            return "" if value is None else f"{value:.12g}"
        case _:
            return "" if value is None else str(value)


def _at(view: Mapping[str, Any], path: str, default: Any) -> Any:
    here: Any = view
    for part in path.split("."):
        if not isinstance(here, Mapping) or part not in here:
            return default
        here = here[part]
    return here


def _put(body: Json, path: str, value: Any) -> None:
    *outer, last = path.split(".")
    for part in outer:
        body = body.setdefault(part, {})
    body[last] = value
