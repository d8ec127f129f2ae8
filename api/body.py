"""From the bytes of a request to a JSON object, and what its headers say about it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.types import Scope

from domain.errors import InvalidRequest
from domain.nesting import MAX_LEVELS, deeper_than

_SESSION = re.compile(r"[\x21-\x7e]{1,256}")
_YES = frozenset({"1", "true", "yes"})
IN_THREAD_BYTES = 100_000
"""Size from which a body is read in a thread: here that takes about a millisecond, at ten megabytes a second, in which nobody
else would be answered."""

_HEADERS = "consilium.headers"
"""Key of the scope: its headers by name, the first of each. A request is asked for seven."""
BODY = "consilium.body"
"""Key of the scope: the whole body, which the middleware has read."""

T = TypeVar("T")


def header_of(scope: Scope, name: bytes) -> str | None:
    """The request's first header of that *name*, in small letters; None when it has none."""
    found = scope.get(_HEADERS)
    if found is None:
        found = scope[_HEADERS] = dict(reversed(scope["headers"]))
    value: bytes | None = found.get(name)
    return None if value is None else value.decode("latin-1")


async def json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises ``InvalidRequest`` that says where it is broken."""
    return await parsed(request, lambda payload: payload)


async def parsed(request: Request, parse: Callable[[dict[str, Any]], T]) -> T:
    """What *parse* makes of the body, a JSON object; both in a thread where the body is large. Raises ``InvalidRequest``."""
    raw = request.scope.get(BODY)
    if raw is None:
        raw = await request.body()
    work = partial(_parsed, raw, parse)
    return work() if len(raw) < IN_THREAD_BYTES else await asyncio.to_thread(work)


def _parsed(raw: bytes, parse: Callable[[dict[str, Any]], T]) -> T:
    return parse(_object_of(raw))


def _object_of(raw: bytes) -> dict[str, Any]:
    if not raw:
        raise InvalidRequest("the body is empty: send a JSON object")
    try:
        payload = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(_where(raw, error)) from None
    if not isinstance(payload, dict):
        raise InvalidRequest("the body must be a JSON object")
    if raw.count(b"[") + raw.count(b"{") <= MAX_LEVELS:  # so it is nearly always, and nothing has to be looked at
        return payload
    deep = next((name for name, value in payload.items() if deeper_than(value, MAX_LEVELS - 1)), None)
    if deep is not None:
        raise InvalidRequest(f"{deep}: the body may be nested at most {MAX_LEVELS} levels deep", param=deep)
    return payload


def _where(raw: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError as broken:
        return f"the body is not valid UTF-8: byte {raw[broken.start]:#04x} at position {broken.start}"
    return f"the body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"


def request_id_of(request: Request) -> str:
    """The id that the outermost middleware chose."""
    request_id: str = request.scope["state"]["request_id"]
    return request_id


def session_id_of(request: Request) -> str | None:
    """``x-session-id``, when it is 1 to 256 printable ASCII characters without spaces. Raises ``InvalidRequest`` otherwise."""
    given = header_of(request.scope, b"x-session-id")
    if given is None:
        return None
    if not _SESSION.fullmatch(given):
        raise InvalidRequest("x-session-id must be 1 to 256 printable ASCII characters without spaces", param="x-session-id")
    return given


def wants_explanation(request: Request) -> bool:
    """Whether the header ``x-consilium-explain`` asks for the explain object."""
    return (header_of(request.scope, b"x-consilium-explain") or "").strip().lower() in _YES
