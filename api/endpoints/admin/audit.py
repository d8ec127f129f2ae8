"""``/admin/api/audit``: who changed what, and when. For owners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.queries import query_of
from api.endpoints.admin.resources import newest_first
from api.openapi import answers, asks
from api.schemas.admin_answers import AuditRow, PageOf
from api.schemas.admin_queries import AuditQuery
from domain.audit import AuditEntry

router = APIRouter(prefix="/audit")


@router.get("", openapi_extra=asks(AuditQuery), responses=answers(PageOf[AuditRow]))
async def list_audit(services: ServicesDep, asked: Annotated[AuditQuery, Depends(query_of(AuditQuery))]) -> Response:
    """The entries that meet every filter, newest first. `before` and `after` hold no secret."""

    async def read(limit: int, after: str | None) -> Sequence[AuditEntry]:
        return await services.keys.audit.list(
            actor=asked.actor, path=asked.path, since=asked.since, until=asked.until, limit=limit, after=after
        )

    return await newest_first(read, asdict, asked, what="entry")
