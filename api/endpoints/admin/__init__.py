"""The admin plane: one router under ``/admin/api``, every request with the admin key.

``If-Match`` is optional everywhere: without it the last write wins, with it a version that has changed is a 412. A PATCH
without it reads and writes at one version, so that changes of others to other fields are kept.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends

from api.dependencies import require_admin
from api.endpoints.admin import (
    aggregator_runs,
    audit,
    category_map,
    evaluations,
    experts,
    feedback,
    keys,
    manifest,
    memory,
    profile_runs,
    profiles,
    questions,
    skills,
    strategies,
    traces,
    workers,
)
from api.endpoints.admin.run_tasks import lifespan
from api.openapi import ERRORS

router = APIRouter(prefix="/admin/api", tags=["admin"], dependencies=[Depends(require_admin)], lifespan=lifespan, responses=ERRORS)
for resource in (
    experts,
    strategies,
    skills,
    questions,
    profile_runs,
    profiles,
    aggregator_runs,
    evaluations,
    category_map,
    traces,
    feedback,
    memory,
    manifest,
    workers,
    keys,
    audit,
):
    router.include_router(resource.router)
