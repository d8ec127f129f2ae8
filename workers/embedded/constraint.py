"""What an answer is bound to: a JSON schema, or a call of one of some tools."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from domain.errors import ExpertRejected

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
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


def constraint_of(params: Mapping[str, Any]) -> Constraint | None:
    """What ``tool_choice`` or, without it, ``response_format`` demand; None when the answer is free.

    ``tool_choice: auto`` leaves the answer free: experts of this size were never taught to decide on a call.
    """
    return _tool_call(params.get("tools") or [], params.get("tool_choice")) or _json_answer(params.get("response_format"))


def _json_answer(wanted: Any) -> JsonAnswer | None:
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
                raise ExpertRejected(msg)
            return JsonAnswer(json.dumps(schema))
    msg = f"response_format.type must be text, json_object or json_schema, not {kind!r}"
    raise ExpertRejected(msg)


def _tool_call(tools: Any, choice: Any) -> ToolCall | None:
    if choice is None or choice in ("auto", "none"):
        return None
    schemas = _tool_schemas(tools)
    if choice == "required":
        if not schemas:
            msg = "tool_choice is 'required', but tools is empty"
            raise ExpertRejected(msg)
        return ToolCall(tuple(schemas.items()))
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        msg = f"tool_choice must be 'none', 'auto', 'required' or name a function, not {choice!r}"
        raise ExpertRejected(msg)
    if name not in schemas:
        msg = f"tool_choice names {name!r}, which is not among tools ({', '.join(schemas) or 'there are none'})"
        raise ExpertRejected(msg)
    return ToolCall(((name, schemas[name]),))


def _tool_schemas(tools: Any) -> dict[str, str]:
    schemas = {}
    for position, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        function = function if isinstance(function, Mapping) else {}
        name = function.get("name")
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            msg = f"tools[{position}].function.name must be 1 to 64 letters, digits, '_', '-' or '.', not {name!r}"
            raise ExpertRejected(msg)
        schemas[name] = json.dumps(function.get("parameters") or {"type": "object", "properties": {}})
    return schemas
