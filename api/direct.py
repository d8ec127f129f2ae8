"""The endpoints that are asked most, reached without FastAPI's routing and dependency injection.

FastAPI has them as well, for ``/openapi.json`` and for whoever calls its routes; the functions are the same. What it does for a
request beside calling them takes as long as everything that this service does for one with an expert's id as its model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.dependencies import get_ready_services
from api.errors import answer_to
from api.services import Services
from domain.errors import ConsiliumError

Endpoint = Callable[[Request, Services], Awaitable[Response]]
"""Of the data plane: asked with a key, when everything is loaded."""


class DirectRoute:
    """Stands where Starlette keeps the matched route: metrics count by ``path``."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


class DirectMiddleware:
    """Answers ``POST`` to the paths of *endpoints* itself, errors of the tree included; everything else goes on."""

    def __init__(self, app: ASGIApp, *, endpoints: Mapping[str, Endpoint]) -> None:
        self._app = app
        self._endpoints = {path: (endpoint, DirectRoute(path)) for path, endpoint in endpoints.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or (found := self._endpoints.get(scope["path"])) is None:
            await self._app(scope, receive, send)
            return
        endpoint, scope["route"] = found
        request = Request(scope, receive, send)
        try:
            response = await endpoint(request, await get_ready_services(request))  # the key was asked for before the body was read
        except ConsiliumError as error:
            response = answer_to(request, error)
        await response(scope, receive, send)
