"""The six verbs of a resource whose versions the database counts: experts, strategies and keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from fastapi import Response

from api.endpoints.admin.resources import IfMatch, Json, etag_of, merged, no_content, one, page, same_id
from api.schemas.admin_queries import PageQuery
from domain.errors import NotFound, PreconditionFailed
from domain.experts import ExpertCard
from domain.keys import ApiKey
from domain.strategy import Strategy

T = TypeVar("T", ExpertCard, Strategy, ApiKey)

_MAX_TRIES = 5
"""How often a PATCH without If-Match reads again when somebody else was quicker."""


class Store(Protocol[T]):
    """What ``ExpertStore`` and ``StrategyStore`` have in common."""

    async def list(self) -> list[T]: ...
    async def get(self, item_id: str, /) -> T: ...
    async def create(self, item: T, /) -> T: ...
    async def replace(self, item: T, /, if_version: int | None = None) -> T: ...
    async def delete(self, item_id: str, /, if_version: int | None = None) -> None: ...


class VersionedResource(Generic[T]):
    """One resource under *path*: what a body becomes, what an item looks like, and what follows a change."""

    def __init__(
        self,
        *,
        kind: str,
        path: str,
        store: Store[T],
        item_of: Callable[[Json], T],
        body_of: Callable[[T], Json],
        view_of: Callable[[T], Json],
        served: frozenset[str],
        changed: Callable[[], Awaitable[object]],
    ) -> None:
        self._kind = kind
        self._path = path
        self._store: Store[T] = store
        self._item_of: Callable[[Json], T] = item_of
        self._body_of: Callable[[T], Json] = body_of
        self._view_of: Callable[[T], Json] = view_of
        self._served = served
        """Fields of a view that are the service's own: what was read may be sent back with them in it."""
        self._changed = changed

    async def page(self, asked: PageQuery, keep: Callable[[T], bool] = lambda _: True) -> Response:
        items: Sequence[T] = await self._store.list()
        return page([item for item in items if keep(item)], lambda item: item.id, self._view_of, asked)

    async def get(self, item_id: str) -> Response:
        return self._one(await self._store.get(item_id))

    async def create(self, body: Mapping[str, Any]) -> Response:
        return await self._created(self._item_of(self._without_served(body)))

    async def put(self, item_id: str, body: Mapping[str, Any], version: IfMatch) -> Response:
        """Replace the item, or make it when there is none and no version was asked for."""
        item = self._item_of(same_id(self._without_served(body), item_id))
        try:
            current = await self._store.get(item_id)
        except NotFound:
            version.require_existing(f"{self._kind} {item_id!r}")
            return await self._created(item)
        self._check(current, version)
        return await self._replaced(item, current.version if version.is_sent else None)

    async def patch(self, item_id: str, body: Mapping[str, Any], version: IfMatch) -> Response:
        """Change the fields of *body*. Without a version, changes of others in between are kept."""
        changes = self._without_served(body)
        for attempt in range(_MAX_TRIES):
            current = await self._store.get(item_id)
            self._check(current, version)
            item = self._item_of(same_id(merged(self._body_of(current), changes), item_id))
            try:
                return await self._replaced(item, current.version)
            except PreconditionFailed:
                if version.is_sent or attempt == _MAX_TRIES - 1:
                    raise
        raise AssertionError("the loop returns or raises")

    async def delete(self, item_id: str, version: IfMatch) -> Response:
        current = await self._store.get(item_id)
        self._check(current, version)
        await self._store.delete(item_id, if_version=current.version if version.is_sent else None)
        await self._changed()
        return no_content()

    async def _created(self, item: T) -> Response:
        stored = await self._store.create(item)
        await self._changed()
        return self._one(stored, status=201, location=f"{self._path}/{stored.id}")

    async def _replaced(self, item: T, if_version: int | None) -> Response:
        stored = await self._store.replace(item, if_version=if_version)
        await self._changed()
        return self._one(stored)

    def _check(self, current: T, version: IfMatch) -> None:
        version.check(etag_of(current.version), f"{self._kind} {current.id!r}")

    def _one(self, item: T, *, status: int = 200, location: str | None = None) -> Response:
        return one(self._view_of(item), etag_of(item.version), status=status, location=location)

    def _without_served(self, body: Mapping[str, Any]) -> Json:
        return {name: value for name, value in body.items() if name not in self._served}
