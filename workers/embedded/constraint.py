"""What an answer is bound to: a JSON schema, or a call of one of some tools."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from domain.errors import ExpertRejected
from domain.quoting import quoted, shortened
from workers.limits import EmbeddedLimits

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_SHOWN = 300
"""Letters of the tools' names that a message lists."""
_ANY_OBJECT = '{"type": "object"}'


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """The answer is a JSON value of *schema* (itself JSON text, so that it can be compared and cached)."""

    schema: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The answer is one call: a tool's name and arguments of its schema. On the wire: ``name {…}``."""

    schemas: tuple[tuple[str, str], ...]
    """``(name, schema)`` of the tools that may be called."""


Constraint = JsonAnswer | ToolCall


def constraint_of(params: Mapping[str, Any], limits: EmbeddedLimits) -> Constraint | None:
    """What ``tool_choice`` or, without it, ``response_format`` demand; None when the answer is free.

    ``tool_choice: auto`` leaves the answer free: experts of this size were never taught to decide on a call.
    Raises ``ExpertRejected`` naming the field, also for schemas beyond *limits*.
    """
    constraint = _tool_call(params.get("tools") or [], params.get("tool_choice"), limits)
    return constraint or _json_answer(params.get("response_format"), limits)


def _json_answer(wanted: Any, limits: EmbeddedLimits) -> JsonAnswer | None:
    kind = wanted.get("type") if isinstance(wanted, Mapping) else wanted
    match kind:
        case None | "text":
            return None
        case "json_object":
            return JsonAnswer(_ANY_OBJECT)
        case "json_schema":
            given = wanted.get("json_schema")
            schema = given.get("schema", {"type": "object"}) if isinstance(given, Mapping) else None
            if not isinstance(schema, Mapping):
                msg = "response_format.json_schema.schema must be a JSON schema (an object)"
                raise ExpertRejected(msg, param="response_format.json_schema.schema")
            return JsonAnswer(_schema_text(schema, "response_format.json_schema.schema", limits))
    msg = f"response_format.type must be text, json_object or json_schema, not {quoted(kind)}"
    raise ExpertRejected(msg, param="response_format.type")


def _tool_call(tools: Any, choice: Any, limits: EmbeddedLimits) -> ToolCall | None:
    if choice is None or choice in ("auto", "none"):
        return None
    schemas = _tool_schemas(tools, limits)
    if choice == "required":
        if not schemas:
            msg = "tool_choice is 'required', but tools is empty"
            raise ExpertRejected(msg, param="tool_choice")
        return ToolCall(tuple(schemas.items()))
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        msg = f"tool_choice must be 'none', 'auto', 'required' or name a function, not {quoted(choice)}"
        raise ExpertRejected(msg, param="tool_choice")
    if name not in schemas:
        listed = shortened(", ".join(schemas), _SHOWN) or "there are none"
        msg = f"tool_choice names {quoted(name)}, which is not among tools ({listed})"
        raise ExpertRejected(msg, param="tool_choice")
    return ToolCall(((name, schemas[name]),))


def _tool_schemas(tools: Any, limits: EmbeddedLimits) -> dict[str, str]:
    if not isinstance(tools, list | tuple):
        msg = f"tools must be a list, not {type(tools).__name__}"
        raise ExpertRejected(msg, param="tools")
    schemas: dict[str, str] = {}
    for position, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        function = function if isinstance(function, Mapping) else {}
        name = function.get("name")
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            msg = f"tools[{position}].function.name must be 1 to 64 letters, digits, '_', '-' or '.', not {quoted(name)}"
            raise ExpertRejected(msg, param=f"tools[{position}].function.name")
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        schemas[name] = _schema_text(schema, f"tools[{position}].function.parameters", limits)
        if sum(map(len, schemas.values())) > limits.max_schema_chars:
            msg = f"the schemas in tools have more than {limits.max_schema_chars} letters together, which this expert does not enforce"
            raise ExpertRejected(msg, param="tools")
    return schemas


def _schema_text(schema: Any, field: str, limits: EmbeddedLimits) -> str:
    """*schema* as JSON, when it is small enough to be compiled: what a few letters cost is in ``EmbeddedLimits``."""

    def too(much: str) -> ExpertRejected:
        return ExpertRejected(f"{field} is too large to be enforced: {much}", param=field)

    num_values, level = 0, [schema]
    for depth in range(limits.max_schema_depth + 1):
        num_values += len(level)  # no value is written in less than one letter
        if num_values > limits.max_schema_chars:
            raise too(f"it has more than {limits.max_schema_chars} letters")
        if depth == limits.max_schema_depth:
            raise too(f"it is nested more than {limits.max_schema_depth} levels deep")
        if any(isinstance(value, Mapping) and len(value) > limits.max_schema_keys for value in level):
            raise too(f"one object has more than {limits.max_schema_keys} keys")
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            break
    text = json.dumps(schema)
    if len(text) > limits.max_schema_chars:
        raise too(f"it has {len(text)} letters, {limits.max_schema_chars} at most")
    return text


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
