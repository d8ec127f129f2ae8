"""``/openapi.json`` for bodies that are read by hand (so that unknown fields pass through untouched)."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.schemas.batches import BatchBody
from api.schemas.chat import ChatBody
from api.schemas.completions import CompletionBody
from api.schemas.embeddings import EmbeddingsBody

_MODELS: tuple[type[BaseModel], ...] = (ChatBody, CompletionBody, EmbeddingsBody, BatchBody)
_REF = "#/components/schemas/{model}"

_ERROR_SCHEMA: dict[str, Any] = {
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
            },
        }
    },
}

_ERROR_CONTENT = {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}

ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The caller must change something.", "content": _ERROR_CONTENT},
    "5XX": {"description": "The service could not.", "content": _ERROR_CONTENT},
}
"""``responses`` of every data-plane endpoint."""


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """``openapi_extra`` of an endpoint whose body is *model*."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}}}


def describe(app: FastAPI) -> None:
    """Make *app* publish the schemas of hand-read bodies too."""

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            whole = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, definitions = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
            components = whole.setdefault("components", {}).setdefault("schemas", {})
            components |= definitions["$defs"] | {"Error": _ERROR_SCHEMA}
            app.openapi_schema = whole
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema
