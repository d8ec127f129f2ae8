"""Who changed what, and when. For owners."""

from __future__ import annotations

from fastapi import Response

from api.rest import Refused, path_of
from api.ui.history import differences_of
from api.ui.visit import VisitDep, page_router
from domain.keys import Role

router = page_router(prefix="/audit")

PAGE = 50


@router.get("")
async def list_audit(visit: VisitDep) -> Response:
    visit.require(Role.OWNER)
    filters = {"actor": visit.asked("actor") or "", "path": visit.asked("path") or ""}
    try:
        answer = await visit.rest.get(
            path_of("audit"), limit=PAGE, cursor=visit.asked("cursor"), actor=filters["actor"] or None, path=filters["path"] or None
        )
    except Refused as refused:
        if refused.param != "cursor":
            raise
        return visit.go("/admin/audit")
    rows = [{**entry, "differences": differences_of(entry["before"], entry["after"])} for entry in answer["data"]]
    return visit.page("audit.html", rows=rows, next_cursor=answer["next"], filters=filters, is_filtered=any(filters.values()))
