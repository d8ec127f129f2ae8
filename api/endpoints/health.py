"""``GET /health`` and ``GET /ready``. Open to everybody: probes carry no keys, and the answers tell nothing private."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
from fastapi import APIRouter, Response

from api.dependencies import ServicesDep
from domain.errors import NotReady, StorageError

log = logging.getLogger(__name__)

router = APIRouter(tags=["health"])

CHECK_TIMEOUT_S = 2.0
"""Longest look at the database for one probe: under the probe timeouts that people set (3 to 5 s)."""


@router.get("/health")
async def health() -> dict[str, Any]:
    """The process lives and answers. Cheap; looks at nothing else."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(services: ServicesDep) -> Response:
    """200 when everything that a request needs is there, else 503; says what is missing.

    A database that is lost *after* the start makes the service `degraded`, not unready: requests are answered from memory, and
    taking every replica out would turn a failed database into a failed service.
    """
    parts = dict(services.readiness.parts)
    missing = dict(services.readiness.missing)
    status = "starting" if missing else "ready"
    if not missing:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await services.database.check()
        except TimeoutError:
            status, parts["database"] = "degraded", f"no answer within {CHECK_TIMEOUT_S:g} s"
        except (NotReady, StorageError) as error:
            log.warning("the database cannot be used: %s", error)
            status, parts["database"] = "degraded", error.public
    body = {"status": status, "parts": parts, "missing": missing, "num_experts": len(services.directory.snapshot().experts)}
    return Response(orjson.dumps(body), status_code=503 if missing else 200, media_type="application/json")
