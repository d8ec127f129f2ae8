"""Every page under ``/admin``. A new one is entered here, and in ``navigation.py``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.ui import assets
from api.ui.pages import (
    audit,
    batches,
    evaluation,
    expert,
    expert_form,
    experts,
    keys,
    login,
    overview,
    playground,
    requests,
    skills,
    strategies,
    workers,
)
from api.ui.visit import VisitDep, lifespan, page_router
from domain.errors import NotFound

router = APIRouter(lifespan=lifespan, include_in_schema=False)
router.include_router(assets.router)
for page in (
    login,
    overview,
    experts,
    expert_form,
    expert,
    requests,
    playground,
    skills,
    batches,
    workers,
    evaluation,
    strategies,
    keys,
    audit,
):
    router.include_router(page.router, prefix="/admin")

_rest = page_router()


@_rest.get("/admin/{path:path}")
async def no_such_page(_visit: VisitDep, request: Request) -> Response:
    raise NotFound(f"there is no page {request.url.path}")


router.include_router(_rest)
