"""``GET /metrics`` for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from api.dependencies import ServicesDep, require_key
from api.metrics import CONTENT_TYPE
from api.openapi import answers_with

router = APIRouter(tags=["health"], dependencies=[Depends(require_key)])


@router.get("/metrics", response_class=Response, responses=answers_with("text/plain", type="string"))
async def metrics(services: ServicesDep) -> Response:
    """Metrics in Prometheus' text format. Where keys are needed, a scraper sends one as `Authorization: Bearer`."""
    return Response(await services.metrics.render(), headers={"content-type": CONTENT_TYPE})
