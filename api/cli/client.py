"""The service's HTTP API as a command sees it: parsed answers, failures that end the command, pages joined, streams read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx

from api.cli.failures import CommandFailed, bad_input, from_status

_PAGE = 500
"""Rows asked for at a time when a command needs all of them."""


def at(path: str, item_id: str) -> str:
    """The address of one item under *path*. Raises ``CommandFailed`` for what would be another address."""
    if item_id in {"", ".", ".."} or "/" in item_id:
        raise bad_input(f"{item_id!r} is no id: one is not empty, and neither a path nor a part of one")
    return f"{path}/{quote(item_id, safe='')}"


class ApiClient:
    """Requests to one service. Raises ``CommandFailed`` for every answer that is not a success."""

    def __init__(self, http: httpx.AsyncClient, *, where: str, is_local: bool) -> None:
        self._http = http
        self.is_local = is_local
        """Whether the service lives in this process, and ends with the command."""
        self.where = where
        """The service, for people: its URL or "this process"."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content: bytes | None = None,
        content_type: str | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The finished answer, a success."""
        sent = dict(headers or {})
        if content_type is not None:
            sent["content-type"] = content_type
        query = {name: value for name, value in (params or {}).items() if value is not None}
        try:
            response = await self._http.request(method, path, json=body, content=content, params=query, headers=sent)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        _raise_for_failure(response)
        return response

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """The answer's JSON, None when it has no body."""
        response = await self.request(method, path, **options)
        return response.json() if response.content else None

    async def get(self, path: str, /, **params: Any) -> Any:
        return await self.call("GET", path, params=params)

    async def rows(self, path: str, /, *, max_rows: int | None = None, **params: Any) -> list[dict[str, Any]]:
        """All rows of a paginated list, at most *max_rows*."""
        rows: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            limit = _PAGE if max_rows is None else min(_PAGE, max_rows - len(rows))
            page = await self.get(path, limit=limit, cursor=cursor, **params)
            rows += page["data"]
            cursor = page["next"]
            if cursor is None or (max_rows is not None and len(rows) >= max_rows):
                return rows

    @asynccontextmanager
    async def events(self, path: str, body: Any, headers: Mapping[str, str]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The server-sent events of one answer, parsed, until ``[DONE]``. An ``error`` event raises ``CommandFailed``."""
        try:
            async with self._http.stream("POST", path, json=body, headers=dict(headers)) as response:
                if response.is_error:
                    await response.aread()
                _raise_for_failure(response)
                yield _parsed(response)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> CommandFailed:
        if isinstance(error, httpx.TimeoutException):
            return CommandFailed(f"{self.where} did not answer in time")
        return CommandFailed(f"cannot reach {self.where}: {str(error) or type(error).__name__}")


async def _parsed(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue  # comments are progress for proxies and people with curl
        data = line[5:].strip()
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError as error:
            raise CommandFailed(f"the stream broke: {data[:80]!r} is no JSON") from error
        if isinstance(event, dict) and isinstance(event.get("error"), dict):
            raise CommandFailed(str(event["error"].get("message", "the stream ended with an error")))
        yield event
    raise CommandFailed("the stream ended before it was complete")


def _raise_for_failure(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        error = response.json()["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError):
        message, param = f"{response.request.url} answered {response.status_code} {response.reason_phrase}", None
    if param and str(param) not in message:
        message = f"{param}: {message}"
    if response.status_code == 401:
        message += (
            " (the command takes the key from --key or CONSILIUM_KEY; for a service on this machine also from CONSILIUM_ADMIN_KEY or the "
            "data dir's admin.key)"
        )
    raise from_status(response.status_code, message)
