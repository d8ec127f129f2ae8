"""``GET /metrics`` for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from api.admission import caller_of
from api.dependencies import ServicesDep, require_key
from api.metrics import CONTENT_TYPE
from api.openapi import answers_with
from domain.errors import Forbidden

router = APIRouter(tags=["health"], dependencies=[Depends(require_key)])


@router.get("/metrics", response_class=Response, responses=answers_with("text/plain", type="string"))
async def metrics(services: ServicesDep, request: Request) -> Response:
    """Metrics in Prometheus' text format. Where keys are needed, a scraper sends one as `Authorization: Bearer`: they name every expert,
    so a stored key has to see all of them, or to have a role."""
    if not caller_of(request).sees_all_of(services.directory.snapshot()):
        raise Forbidden(
            "the metrics name experts and strategies that this key does not see: scrape with a key that sees all, or has a role"
        )
    return Response(await services.metrics.render(), headers={"content-type": CONTENT_TYPE})
