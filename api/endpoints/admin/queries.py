"""Query strings: read by our own models, so that errors name the parameter and suggest the nearest, and shown in OpenAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from api.openapi import asks
from api.schemas.admin_queries import PageQuery, Query
from experts_registry.manifest import parse

QueryT = TypeVar("QueryT", bound=Query)


def query_of(model: type[QueryT]) -> Callable[[Request], Awaitable[QueryT]]:
    """A dependency that gives the query string as *model*; the last of a repeated parameter counts."""

    async def read(request: Request) -> QueryT:
        return parse(model, dict(request.query_params))

    return read


Page = Annotated[PageQuery, Depends(query_of(PageQuery))]
"""For lists that have no filter."""
PAGED = asks(PageQuery)
