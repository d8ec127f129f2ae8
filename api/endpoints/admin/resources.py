"""What every admin resource shares: bodies, versions (ETag, If-Match), pages, and names that do not exist."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar
from urllib.parse import quote

import orjson
from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from api.body import json_object
from api.json_response import json_response
from api.openapi import inlined
from api.schemas.admin_queries import PageQuery
from domain.errors import InvalidRequest, NotFound, PreconditionFailed
from domain.nearest import did_you_mean

Json = dict[str, Any]
Row = TypeVar("Row")


class Identified(Protocol):
    """A row that has an id."""

    @property
    def id(self) -> str: ...


Listed = TypeVar("Listed", bound=Identified)


# --- bodies ----------------------------------------------------------------------------------------------------------


Body = Annotated[Json, Depends(json_object)]
"""The request's JSON object."""


async def _optional_body(request: Request) -> Json:
    return await json_object(request) if await request.body() else {}


OptionalBody = Annotated[Json, Depends(_optional_body)]
"""The same where nothing has to be said."""


def merged(current: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """*current* changed by *patch* (JSON merge patch, RFC 7396: null removes a key, objects merge, all else replaces)."""
    result = dict(current)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            inner = result.get(key)
            result[key] = merged(inner if isinstance(inner, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def same_id(payload: Mapping[str, Any], resource_id: str, key: str = "id") -> Json:
    """*payload* with the id of its address. Raises ``InvalidRequest`` when it names another one."""
    given = payload.get(key, resource_id)
    if given != resource_id:
        raise InvalidRequest(f"{key} is {given!r} in the body and {resource_id!r} in the address; it cannot be changed", param=key)
    return {**payload, key: resource_id}


def described_by(model: type[BaseModel], *, required: bool = True, partial: bool = False) -> Json:
    """OpenAPI's description of a body that an endpoint reads itself; *partial* as a JSON merge patch of it."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    shown = inlined(schema, definitions)
    if partial:
        shown = _patch_of(shown)
    kinds = ("application/json", "application/merge-patch+json") if partial else ("application/json",)
    return {"requestBody": {"required": required, "content": {kind: {"schema": shown} for kind in kinds}}}


def _patch_of(schema: Mapping[str, Any]) -> Json:
    """Of an object: no field is needed, null takes one away, objects in it are patched likewise."""
    properties = schema.get("properties")
    if properties is None:
        return dict(schema)
    patched = {name: {"anyOf": [_patch_of(inner), {"type": "null"}]} for name, inner in properties.items()}
    return {key: value for key, value in schema.items() if key != "required"} | {"properties": patched}


# --- versions --------------------------------------------------------------------------------------------------------


def etag_of(value: int | Mapping[str, Any]) -> str:
    """The entity tag of a version number, or of a representation that has no version."""
    if isinstance(value, int):
        return f'"{value}"'
    return f'"{hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]}"'


@dataclass(frozen=True, slots=True)
class IfMatch:
    """The header ``If-Match``: optional; when it is sent, it is honoured."""

    tags: frozenset[str] | None = None
    """None: not sent, or ``*``."""
    is_sent: bool = False

    def check(self, current: str, what: str) -> None:
        """Raise ``PreconditionFailed`` unless *current* is among the tags."""
        if self.tags is not None and current not in self.tags:
            raise PreconditionFailed(f"{what} was changed meanwhile (it is at {current} now): read it again, then repeat the change")

    def require_existing(self, what: str) -> None:
        """Raise ``PreconditionFailed`` when a version was asked for of something that does not exist."""
        if self.is_sent:
            raise PreconditionFailed(f"{what} does not exist, so no version of it can match")


def if_match(header: Annotated[str | None, Header(alias="If-Match")] = None) -> IfMatch:
    if header is None:
        return IfMatch()
    if header.strip() == "*":
        return IfMatch(is_sent=True)
    tags = frozenset(part.strip().removeprefix("W/") for part in header.split(",") if part.strip())
    return IfMatch(frozenset(tag if tag.startswith('"') else f'"{tag}"' for tag in tags), is_sent=True)


Version = Annotated[IfMatch, Depends(if_match)]


def one(view: Json, tag: str, *, status: int = 200, location: str | None = None) -> Response:
    """One resource with its tag."""
    headers = {"etag": tag}
    if location is not None:
        headers["location"] = quote(location)
    return Response(orjson.dumps(view), status_code=status, headers=headers, media_type="application/json")


def no_content() -> Response:
    return Response(status_code=204)


# --- pages -----------------------------------------------------------------------------------------------------------


def page(
    rows: Iterable[Row], key: Callable[[Row], str], view: Callable[[Row], Json], asked: PageQuery, *, beside: Json | None = None
) -> Response:
    """One page of *rows* by ascending *key*, with what stands *beside* the list. Rows that come or go between two pages shift nothing."""
    after = None if asked.cursor is None else decode_cursor(asked.cursor)
    rest = sorted((row for row in rows if after is None or key(row) > after), key=key)
    shown = rest[: asked.limit]
    more = len(rest) > len(shown)
    return page_response([view(row) for row in shown], key(shown[-1]) if more else None, beside=beside)


def page_response(data: Sequence[Json], last_key: str | None, *, beside: Json | None = None) -> Response:
    """A page whose next one begins behind *last_key*; None ends the list."""
    return json_response({"data": data, "next": None if last_key is None else encode_cursor(last_key), **(beside or {})})


async def newest_first(
    read: Callable[[int, str | None], Awaitable[Sequence[Listed]]],
    view: Callable[[Listed], Json],
    asked: PageQuery,
    *,
    what: str,
) -> Response:
    """One page of rows that a store gives newest first: *read* takes how many, and the id of the row that they come after. *what* a row is,
    for people. Raises ``InvalidRequest`` when the row where the page began is gone."""
    try:
        found = await read(asked.limit + 1, None if asked.cursor is None else decode_cursor(asked.cursor))
    except NotFound as error:
        raise InvalidRequest(f"the {what} where this page began is not there: start again without a cursor", param="cursor") from error
    shown = found[: asked.limit]
    return page_response([view(row) for row in shown], shown[-1].id if len(found) > len(shown) else None)


def encode_cursor(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:  # no base64, other letters than ASCII's, no UTF-8 in it
        raise InvalidRequest(f"cursor {cursor[:40]!r} is not one that a list has given", param="cursor") from None


def place_in(cursor: str) -> int:
    """The place in a log that *cursor* was given for."""
    text = decode_cursor(cursor)
    if not text.isdecimal() or len(text) > 18:
        raise InvalidRequest("cursor is none that a page gave: start again without one", param="cursor")
    return int(text)


# --- names -----------------------------------------------------------------------------------------------------------


def not_found(kind: str, given: str, known: Iterable[str]) -> NotFound:
    return NotFound(f"there is no {kind} {given!r}; {did_you_mean(given, sorted(known), always_list=True)}")


def require_known(given: Iterable[str], known: Iterable[str], *, kind: str, param: str) -> None:
    """Raise ``InvalidRequest`` for the first of *given* that is not *known*, with the nearest one that is."""
    names = set(known)
    for name in given:
        if name not in names:
            hint = did_you_mean(name, sorted(names), always_list=True)
            raise InvalidRequest(f"{param}: there is no {kind} {name!r}; {hint}", param=param)
