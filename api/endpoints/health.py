"""``GET /health`` and ``GET /ready``. Open to everybody: probes carry no keys, and the answers tell nothing private."""

from __future__ import annotations

import asyncio
import logging

from fastapi import APIRouter, Request, Response

from api.dependencies import ServicesDep
from api.json_response import json_response
from api.openapi import answers
from api.schemas.answers import Alive, Readied
from domain.errors import NotReady, StorageError

log = logging.getLogger(__name__)

router = APIRouter(tags=["health"])

CHECK_TIMEOUT_S = 2.0
"""Longest look at the database for one probe: under the probe timeouts that people set (3 to 5 s)."""


@router.get("/health", responses=answers(Alive))
async def health() -> Response:
    """The process lives and answers. Cheap; looks at nothing else."""
    return json_response({"status": "ok"})


@router.get("/ready", responses=answers(Readied, 200, 503))
async def ready(services: ServicesDep, request: Request) -> Response:
    """200 when everything that a request needs is there, else 503; says what is missing, or that the process is about to end.

    A database that is lost *after* the start makes the service `degraded`, not unready: requests are answered from memory, and
    taking every replica out would turn a failed database into a failed service.
    """
    parts = dict(services.readiness.parts)
    missing, drain = dict(services.readiness.missing), request.app.state.drain
    status = "draining" if drain.has_begun else "starting" if missing else "ready"
    if status == "ready":
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await services.database.check()
        except TimeoutError:
            status, parts["database"] = "degraded", f"no answer within {CHECK_TIMEOUT_S:g} s"
        except (NotReady, StorageError) as error:
            log.warning("the database cannot be used: %s", error)
            status, parts["database"] = "degraded", error.public
    body = {"status": status, "parts": parts, "missing": missing, "num_experts": len(services.directory.snapshot().experts)}
    return json_response(body, status=503 if missing or drain.has_begun else 200)
