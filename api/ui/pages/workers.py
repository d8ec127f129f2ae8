"""The managed servers: what is loaded where, and what a person does about it."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import Response

from api.rest import path_of
from api.ui.visit import VisitDep, page_router
from domain.errors import InvalidRequest

router = page_router(prefix="/workers")

CHANGES = ("start", "stop", "sleep", "wake")
NUM_LINES = 200


@router.get("")
async def list_workers(visit: VisitDep) -> Response:
    return visit.page("workers.html", fleet=visit.services.fleet.view())


@router.get("/live")
async def workers_now(visit: VisitDep) -> Response:
    """As it is now, for a page that stays open."""
    return visit.page("fragments/workers.html", fleet=visit.services.fleet.view())


@router.post("/{server_id}/{change}")
async def change_worker(visit: VisitDep, server_id: str, change: str) -> Response:
    """``start``, ``stop``, ``sleep`` or ``wake``; answers when it is done, and the page renews itself meanwhile."""
    if change not in CHANGES:
        raise InvalidRequest(f"a server cannot be made to {change[:40]!r}: there are {', '.join(CHANGES)}")
    await visit.rest.send("POST", path_of("workers", server_id, change))
    if visit.request.headers.get("hx-request"):
        return Response()  # nothing went wrong; the map shows the rest
    return visit.go("/admin/workers")


@router.get("/{server_id}/logs")
async def worker_logs(visit: VisitDep, server_id: str) -> Response:
    """The last lines that a server wrote."""
    told = await visit.rest.get(path_of("workers", server_id, "logs"), lines=NUM_LINES)
    name = "fragments/log.html" if visit.request.headers.get("hx-request") else "worker_logs.html"
    return visit.page(name, server=told["id"], lines=told["lines"], live=f"/admin/workers/{quote(server_id, safe='')}/logs")
