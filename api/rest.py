"""The service's own API, asked in the name of who is logged in: the one way by which pages change anything.

So a form is checked, refused, made live and written into the audit log exactly as the same request of a program would be.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
from fastapi import FastAPI

from api.auth import Auth, Caller
from api.draining import ADMITTED
from api.in_process import SCOPE, InProcessTransport

Json = dict[str, Any]
_HERE = "http://127.0.0.1"
TIMEOUT_S = 600.0
"""Longest that a page waits for the API: a managed server may have to be loaded first."""


class Refused(Exception):
    """The API would not do it. ``str(refused)`` is for people."""

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message") or f"the service answered {status}"))
        self.status = status
        self.message = str(self)
        self.param: str | None = error.get("param")
        self.code: str = error.get("code") or "error"
        self.error = error


def api_client(app: FastAPI) -> httpx.AsyncClient:
    """For all requests of this process to itself; to be closed with the app."""
    return httpx.AsyncClient(transport=InProcessTransport(app, state={}), base_url=_HERE, timeout=TIMEOUT_S, trust_env=False)


class Rest:
    """The API for one caller. *request_id* is that of the page's request, so that both stand under one id in log and audit; what a page
    asks is a part of its own request, which was let in."""

    def __init__(self, client: httpx.AsyncClient, auth: Auth, caller: Caller, request_id: str | None) -> None:
        self._client, self._auth, self._caller, self._request_id = client, auth, caller, request_id

    def apart(self) -> Rest:
        """The same for work that outlives the page: each request of it is one of its own, with its own id, and is let in or not."""
        return Rest(self._client, self._auth, self._caller, None)

    async def get(self, path: str, /, **query: Any) -> Json:
        """The JSON object at *path*; parameters that are None are left out. Raises ``Refused``."""
        return _object(await self.ask("GET", path, query=query))

    async def send(self, method: str, path: str, /, body: Any = None, *, version: str | None = None, **query: Any) -> Json:
        """Change something; *version* is the ``ETag`` that it has to have still. Raises ``Refused``."""
        return _object(await self.ask(method, path, body=body, version=version, query=query))

    async def ask(
        self, method: str, path: str, *, body: Any = None, version: str | None = None, query: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        """The answer as it came. Raises ``Refused`` unless it is a success."""
        with self._auth.lent(self._caller) as authorization:
            response = await self._client.request(
                method,
                path,
                json=body,
                params=_given(query or {}),
                headers=self._headers(authorization, version),
                extensions=self._extensions(),
            )
        if response.is_error:
            raise refusal(response.status_code, response.content)
        return response

    @asynccontextmanager
    async def stream(self, path: str, body: Any) -> AsyncIterator[httpx.Response]:
        """The answer to a POST as it comes, errors too."""
        with self._auth.lent(self._caller) as authorization:
            headers = self._headers(authorization)
            async with self._client.stream("POST", path, json=body, headers=headers, extensions=self._extensions()) as response:
                yield response

    def _headers(self, authorization: str, version: str | None = None) -> dict[str, str]:
        more = {"x-request-id": self._request_id, "if-match": version}
        return {"authorization": authorization, **{name: value for name, value in more.items() if value is not None}}

    def _extensions(self) -> dict[str, Any]:
        return {} if self._request_id is None else {SCOPE: {ADMITTED: True}}


def path_of(*parts: str) -> str:
    """``/admin/api`` with *parts* behind it, each quoted."""
    return "/admin/api/" + "/".join(quote(part, safe="") for part in parts)


def refusal(status: int, content: bytes) -> Refused:
    """What *content*, an answer's body, says went wrong."""
    try:
        told = httpx.Response(status, content=content).json()
    except ValueError:
        return Refused(status, {})
    error = told.get("error") if isinstance(told, dict) else None
    return Refused(status, error if isinstance(error, dict) else {})


def _object(response: httpx.Response) -> Json:
    found = response.json() if response.content else {}
    return found if isinstance(found, dict) else {"data": found}


def _given(query: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in query.items() if value is not None}
