"""Pydantic's errors as one sentence for a person: which field, what it must be, the nearest valid value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.quoting import MAX_QUOTED, quoted, shortened

_WANTED: Mapping[str, str] = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "mapping_type": "an object",
    "none_required": "null",
}

_WHOLE = frozenset({"int_type", "int_from_float"})
_MIN_WHOLE, _MAX_WHOLE = -(2**63), 2**64 - 1
"""What JSON is read with: a whole number beyond them arrives as a float."""

_OF_ABSENT = frozenset({"missing", "value_error"})
"""Kinds of error whose path may end in a field that the payload does not have."""

_JSON_NAMES: Sequence[tuple[type, str]] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (str, "a string"),
    (list, "a list"),
    (dict, "an object"),
)

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an input."""

    param: str | None
    message: str


def validate(model: type[ModelT], payload: object) -> ModelT:
    """*payload* as *model*. Raises ``InvalidRequest`` that names the field and says what it must be."""
    _check_keys(payload, model, ())
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        # All of them are made to show one: lists stop at their first (``fail_fast``), other collections are bounded before.
        problem = first_problem(error.errors(include_url=False), payload, model)
        raise InvalidRequest(problem.message, param=problem.param) from None


def _check_keys(payload: object, model: type[BaseModel], path: tuple[str, ...]) -> None:
    """Raise ``InvalidRequest`` for the first key of *payload*, which stands at *path*, that *model* forbids, and for those of the
    objects in it. Pydantic, which finds it too, would first collect all the others."""
    if not isinstance(payload, dict) and not isinstance(payload, Mapping):  # which takes ten times as long to ask
        return
    known = model.model_fields
    if model.model_config.get("extra") == "forbid" and (unknown := next((key for key in payload if key not in known), None)) is not None:
        param = _dotted((*path, unknown))
        raise InvalidRequest(f"{param}: unknown key{_hint(unknown, list(known))}", param=param)
    for name, inner in _models_of(model):
        if name in payload:
            _check_keys(payload[name], inner, (*path, name))


@cache
def _models_of(model: type[BaseModel]) -> tuple[tuple[str, type[BaseModel]], ...]:
    """The fields of *model* that hold objects, with what those are. Looked for once: every request asks."""
    return tuple((name, inner) for name, field in model.model_fields.items() if (inner := _model_in(field.annotation)) is not None)


def first_problem(found: Iterable[Any], payload: object, model: type[BaseModel] | None = None) -> Problem:
    """The first error of *found* in plain words. Alternatives of a union are told together ("a string or a list")."""
    # A union reports one error per alternative, with the alternative's name in its path: drop what the payload does not have,
    # and prefer the deepest path, which is where the closest alternative went wrong.
    paths = [(_clean(error["loc"], payload, error["type"] in _OF_ABSENT), error) for error in found]
    top = paths[0][0][:1]
    mine = [(path, error) for path, error in paths if path[:1] == top]
    deepest = max(len(path) for path, _ in mine)
    path = next(path for path, _ in mine if len(path) == deepest)
    same = [error for other, error in mine if other == path]
    param = _dotted(path) or None
    return Problem(param, _sentence(same, param, path, model))


def _sentence(same: Sequence[Any], param: str | None, path: tuple[str | int, ...], model: type[BaseModel] | None) -> str:
    name = param or "the body"
    kinds = {error["type"] for error in same}
    first = same[0]
    if (long := next((error for error in same if error["type"] == "too_long"), None)) is not None:
        return f"{name} has {len(long['input'])} items, at most {long['ctx']['max_length']} are taken"
    if kinds == {"missing"}:
        return f"{name} is missing"
    if kinds == {"extra_forbidden"}:
        return f"{name}: unknown key{_hint(str(path[-1]), _fields_at(model, path[:-1]))}"
    if kinds <= set(_WANTED):
        if kinds <= _WHOLE and isinstance(first["input"], float) and abs(first["input"]) >= -_MIN_WHOLE:
            return f"{name} must be a whole number from {_MIN_WHOLE} to {_MAX_WHOLE}, not {quoted(first['input'])}"
        wanted = list(dict.fromkeys(_WANTED[error["type"]] for error in same))
        return f"{name} must be {' or '.join(wanted)}, not {_json_name(first['input'])}"
    if first["type"] in {"literal_error", "enum"}:
        known = [value.strip().strip("'") for value in first["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return f"{name}: {quoted(first['input'])} is not valid; {did_you_mean(str(first['input']), known, always_list=True)}"
    if first["type"] == "value_error":
        return f"{name}: {first['ctx']['error']}"
    message = str(first["msg"])
    if message.startswith("Input should be "):
        return f"{name} must be {message.removeprefix('Input should be ')}, not {quoted(first['input'])}"
    return f"{name}: {message[:1].lower()}{message[1:]}"


def _hint(key: str, known: Sequence[str]) -> str:
    return f"; {did_you_mean(key, known, always_list=True)}" if known else ""


def _clean(loc: Sequence[str | int], payload: object, absent: bool) -> tuple[str | int, ...]:
    """*loc* without the names of union alternatives (and FastAPI's leading ``body``)."""
    parts = tuple(loc[1:]) if loc and loc[0] == "body" else tuple(loc)
    kept: list[str | int] = []
    here = payload
    for i, part in enumerate(parts):
        in_object = isinstance(here, Mapping) and part in here
        in_list = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if in_object or in_list:
            here = here[part]  # type: ignore[index]  # one of the two above
        elif not (absent and i == len(parts) - 1 and isinstance(here, Mapping)):
            continue
        kept.append(part)
    return tuple(kept)


def _dotted(path: Iterable[str | int]) -> str:
    text = ""
    for part in path:
        name = part if isinstance(part, int) else shortened(part, MAX_QUOTED)
        text += f"[{name}]" if isinstance(part, int) else f".{name}" if text else str(name)
    return text


def _fields_at(model: type[BaseModel] | None, path: Iterable[str | int]) -> list[str]:
    """Field names of the model that stands at *path* inside *model*."""
    here = model
    for part in path:
        if here is None or not isinstance(part, str):
            continue
        field = here.model_fields.get(part)
        here = _model_in(field.annotation) if field else None
    return list(here.model_fields) if here else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _model_in(argument):
            return found
    return None


def _json_name(value: object) -> str:
    if value is None:
        return "null"
    name = next((name for kind, name in _JSON_NAMES if isinstance(value, kind)), type(value).__name__)
    return name if isinstance(value, list | dict) else f"{name} ({quoted(value)})"
