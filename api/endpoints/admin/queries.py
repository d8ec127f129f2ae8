"""Query strings: read by our own models, so that errors name the parameter and suggest the nearest, and shown in OpenAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from api.endpoints.admin.resources import Json, inlined
from api.schemas.admin_queries import PageQuery, Query
from experts_registry.manifest import parse

QueryT = TypeVar("QueryT", bound=Query)


def query_of(model: type[QueryT]) -> Callable[[Request], Awaitable[QueryT]]:
    """A dependency that gives the query string as *model*; the last of a repeated parameter counts."""

    async def read(request: Request) -> QueryT:
        return parse(model, dict(request.query_params))

    return read


def asks(model: type[Query]) -> Json:
    """OpenAPI's description of *model* as query parameters."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    properties = inlined(schema["properties"], schema.get("$defs", {}))
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in required, "schema": described} for name, described in properties.items()
        ]
    }


Page = Annotated[PageQuery, Depends(query_of(PageQuery))]
"""For lists that have no filter."""
PAGED = asks(PageQuery)
