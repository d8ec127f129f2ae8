"""``/openapi.json`` for an API that reads its bodies and writes its answers by hand: unknown fields pass through untouched, and
nothing on the hot path is validated twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.schemas.answers import ChatCompletionChunk
from api.schemas.batches import BatchBody
from api.schemas.chat import ChatBody
from api.schemas.completions import CompletionBody
from api.schemas.embeddings import EmbeddingsBody
from api.schemas.feedback import FeedbackBody

Described = dict[str, Any]
"""A part of the document."""

_BODIES: tuple[type[BaseModel], ...] = (ChatBody, CompletionBody, EmbeddingsBody, BatchBody, FeedbackBody)
_REF = "#/components/schemas/{model}"

_ERROR_SCHEMA: Described = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
                "experts": {
                    "type": "array",
                    "description": "Which experts failed, or why each may not answer.",
                    "items": {
                        "type": "object",
                        "required": ["expert", "message"],
                        "properties": {"expert": {"type": "string"}, "code": {"type": "string"}, "message": {"type": "string"}},
                    },
                },
            },
            "additionalProperties": False,
        }
    },
    "additionalProperties": False,
}

_ERROR_CONTENT = {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}

ERRORS: dict[int | str, Described] = {
    "4XX": {"description": "The caller must change something.", "content": _ERROR_CONTENT},
    "5XX": {"description": "The service could not.", "content": _ERROR_CONTENT},
}
"""``responses`` of every endpoint, beside its answer."""

_KEY = "key"
_SECURITY_SCHEMES = {_KEY: {"type": "http", "scheme": "bearer", "description": "An API key, or the admin key."}}
EVENTS: Described = {
    "text/event-stream": {
        "schema": {
            "type": "string",
            "description": "With `stream`: server-sent events, each with a chunk as its `data`, the last with `[DONE]`.",
        }
    }
}
_VALIDATION_ERROR = "422"
"""FastAPI's own status for wrong parameters, which is a 400 here as everywhere else."""


# --- bodies and parameters -------------------------------------------------------------------------------------------


def body_of(model: type[BaseModel]) -> Described:
    """``openapi_extra`` of an endpoint of the data plane whose body is *model*."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}}}


def asks(model: type[BaseModel]) -> Described:
    """``openapi_extra`` of an endpoint whose query parameters are *model*."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    properties = inlined(schema["properties"], schema.get("$defs", {}))
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in required, "schema": described} for name, described in properties.items()
        ]
    }


def inlined(node: Any, definitions: Mapping[str, Any]) -> Any:
    """*node* without references, so that it can stand anywhere in the document. The models are not recursive."""
    if isinstance(node, list):
        return [inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if reference := node.get("$ref"):
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return inlined({**definitions[reference.rpartition("/")[2]], **rest}, definitions)
    return {key: inlined(value, definitions) for key, value in node.items()}


# --- answers ---------------------------------------------------------------------------------------------------------


def answers(model: Any, *statuses: int, also: Described | None = None) -> dict[int | str, Described]:
    """``responses`` of an endpoint that answers *model* with any of *statuses* (200 when none is named), or an error.

    *also* is what else it may answer with: a description by media type, such as ``EVENTS``.
    """
    told: Described = {"model": model, "description": "What was asked for.", **({} if also is None else {"content": also})}
    return {**{status: dict(told) for status in statuses or (200,)}, **ERRORS}


def answers_with(media_type: str, **schema: str) -> dict[int | str, Described]:
    """The same for one that answers something else than JSON, of this *schema*."""
    return {200: {"description": "What was asked for.", "content": {media_type: {"schema": schema}}}, **ERRORS}


# --- the document ----------------------------------------------------------------------------------------------------


def describe(app: FastAPI) -> None:
    """Make *app* publish the schemas of hand-read bodies too, and who may ask what."""

    def schema() -> Described:
        if app.openapi_schema is None:
            whole = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            components = whole.setdefault("components", {})
            _, bodies = models_json_schema([(model, "validation") for model in _BODIES], ref_template=_REF)
            _, chunks = models_json_schema([(ChatCompletionChunk, "serialization")], ref_template=_REF)
            named = components.setdefault("schemas", {})
            named |= bodies["$defs"] | chunks["$defs"] | {"Error": _ERROR_SCHEMA}
            for unused in ("HTTPValidationError", "ValidationError"):
                named.pop(unused, None)
            components["securitySchemes"] = _SECURITY_SCHEMES
            for path, operations in whole["paths"].items():
                for operation in operations.values():
                    operation["responses"].pop(_VALIDATION_ERROR, None)
                    if (needed := _security_of(path)) is not None:
                        operation["security"] = needed
            app.openapi_schema = whole
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema


def _security_of(path: str) -> list[dict[str, list[str]]] | None:
    if path.startswith("/admin/"):
        return [{_KEY: []}]
    if path.startswith("/v1/") or path == "/metrics":
        return [{_KEY: []}, {}]  # none is needed on loopback, as long as there is no key at all
    return None
