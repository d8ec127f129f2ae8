"""``/admin/api/workers``: the vLLM servers that this process manages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.queries import PAGED, Page, query_of
from api.endpoints.admin.resources import page
from api.json_response import json_response
from api.openapi import answers, asks
from api.schemas.admin_answers import LogsTold, ServersTold, ServerTold
from api.schemas.admin_queries import LogsQuery
from api.services import Services
from api.worker_views import pool_view, server_view
from domain.deadline import Deadline

router = APIRouter(prefix="/workers")

CHANGE_TIMEOUT_S = 590.0
"""Longest wait for a server to come up, or to end what it serves and go: a little less than the command line waits for an answer."""


@router.get("", openapi_extra=PAGED, responses=answers(ServersTold))
async def list_workers(services: ServicesDep, asked: Page) -> Response:
    """The servers by id; beside them the pools of memory that they share, the experts that could not be given a server, each with the
    reason, and why no server can be started at all, when that is so."""
    view = services.fleet.view()
    beside = {"pools": [pool_view(pool) for pool in view.pools], "unplaced": dict(view.obstacles), "trouble": view.trouble}
    return page(view.servers, lambda server: server.id, server_view, asked, beside=beside)


@router.get("/{server_id}", responses=answers(ServerTold))
async def get_worker(services: ServicesDep, server_id: str) -> Response:
    """One server, by its id or by that of an expert on it."""
    return _shown(services, services.fleet.operations.server_named(server_id))


@router.post("/{server_id}/start", responses=answers(ServerTold))
async def start_worker(services: ServicesDep, server_id: str) -> Response:
    """Load the server; others make room for it as for a request. Answers when it is up."""
    return await _changed(services, services.fleet.operations.start, server_id)


@router.post("/{server_id}/stop", responses=answers(ServerTold))
async def stop_worker(services: ServicesDep, server_id: str) -> Response:
    """Stop the server as soon as it is idle. Answers when it is gone; the next request for it loads it again. 409 when it is pinned."""
    return await _changed(services, services.fleet.operations.stop, server_id)


@router.post("/{server_id}/sleep", responses=answers(ServerTold))
async def sleep_worker(services: ServicesDep, server_id: str) -> Response:
    """Put the server to sleep as soon as it is idle. 400 when that would free nothing, 409 when it does not run or is pinned."""
    return await _changed(services, services.fleet.operations.sleep, server_id)


@router.post("/{server_id}/wake", responses=answers(ServerTold))
async def wake_worker(services: ServicesDep, server_id: str) -> Response:
    """Wake the server. 409 when it does not run."""
    return await _changed(services, services.fleet.operations.wake, server_id)


@router.get("/{server_id}/logs", openapi_extra=asks(LogsQuery), responses=answers(LogsTold))
async def worker_logs(services: ServicesDep, server_id: str, asked: Annotated[LogsQuery, Depends(query_of(LogsQuery))]) -> Response:
    """The last lines that the server wrote, oldest first, those of earlier starts included."""
    lines = await services.fleet.operations.logs(server_id, asked.lines)
    return json_response({"id": services.fleet.operations.server_named(server_id), "lines": lines})


async def _changed(services: Services, change: Callable[[str, Deadline], Awaitable[str]], name: str) -> Response:
    return _shown(services, await change(name, Deadline.after(CHANGE_TIMEOUT_S)))


def _shown(services: Services, server_id: str) -> Response:
    return json_response(next(server_view(server) for server in services.fleet.view().servers if server.id == server_id))
