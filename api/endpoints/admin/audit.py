"""``/admin/api/audit``: who changed what, and when. For owners."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.queries import query_of
from api.endpoints.admin.resources import decode_cursor, page_response
from api.openapi import answers, asks
from api.schemas.admin_answers import AuditRow, PageOf
from api.schemas.admin_queries import AuditQuery
from domain.errors import InvalidRequest, NotFound

router = APIRouter(prefix="/audit")


@router.get("", openapi_extra=asks(AuditQuery), responses=answers(PageOf[AuditRow]))
async def list_audit(services: ServicesDep, asked: Annotated[AuditQuery, Depends(query_of(AuditQuery))]) -> Response:
    """The entries that meet every filter, newest first. `before` and `after` hold no secret."""
    try:
        found = await services.keys.audit.list(
            actor=asked.actor,
            path=asked.path,
            since=asked.since,
            until=asked.until,
            limit=asked.limit + 1,
            after=None if asked.cursor is None else decode_cursor(asked.cursor),
        )
    except NotFound as error:
        raise InvalidRequest("the entry where this page began is not there: start again without a cursor", param="cursor") from error
    shown = found[: asked.limit]
    return page_response([asdict(entry) for entry in shown], shown[-1].id if len(found) > len(shown) else None)
