"""``/admin/api/memory``: the solved problems that strategies with the mode ``memory`` show to experts, by tenant."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.queries import query_of
from api.endpoints.admin.resources import Body, Json, described_by, etag_of, no_content, one, page_response, place_in, require_known
from api.json_response import json_response
from api.openapi import answers, asks
from api.schemas.admin import SolvedProblemsBody
from api.schemas.admin_answers import Forgotten, PageOf, ProblemsKept, SolvedProblemTold
from api.schemas.admin_queries import ClearMemoryQuery, MemoryQuery
from domain.memory import LOCAL_TENANT, SolvedProblem
from experts_registry.manifest import parse

router = APIRouter(prefix="/memory")


@router.get("", openapi_extra=asks(MemoryQuery), responses=answers(PageOf[SolvedProblemTold]))
async def list_problems(services: ServicesDep, asked: Annotated[MemoryQuery, Depends(query_of(MemoryQuery))]) -> Response:
    """The solved problems of every tenant, or of one, the last kept first."""
    before = None if asked.cursor is None else place_in(asked.cursor)
    found = await services.memory.store.list(tenant=asked.tenant, limit=asked.limit + 1, before=before)
    shown = found[: asked.limit]
    return page_response([problem_view(problem) for problem in shown], str(shown[-1].sequence) if len(found) > len(shown) else None)


@router.post("", openapi_extra=described_by(SolvedProblemsBody), responses=answers(ProblemsKept))
async def add_problems(services: ServicesDep, body: Body) -> Response:
    """Keep problems with answers that you vouch for, all or none. One whose question the tenant has already takes its place. Where a tenant
    has more than `CONSILIUM_MEMORY_PROBLEMS`, those leave that were shown longest ago."""
    given, now = parse(SolvedProblemsBody, body), time.time()
    require_known([given.tenant], {LOCAL_TENANT, *services.directory.snapshot().keys}, kind="tenant", param="tenant")
    problems = [
        SolvedProblem("", given.tenant, row.question, row.answer, "import", now, tuple(row.skills), row.expert) for row in given.problems
    ]
    kept = await services.memory.add(problems)
    return json_response({"tenant": given.tenant, "ids": [problem.id for problem in kept]})


@router.get("/{problem_id}", responses=answers(SolvedProblemTold))
async def get_problem(services: ServicesDep, problem_id: str) -> Response:
    view = problem_view(await services.memory.store.get(problem_id))
    return one(view, etag_of(view))


@router.delete("", openapi_extra=asks(ClearMemoryQuery), responses=answers(Forgotten))
async def clear_memory(services: ServicesDep, asked: Annotated[ClearMemoryQuery, Depends(query_of(ClearMemoryQuery))]) -> Response:
    """Forget all of one tenant's problems."""
    return json_response({"num_deleted": await services.memory.clear(asked.tenant)})


@router.delete("/{problem_id}", status_code=204)
async def delete_problem(services: ServicesDep, problem_id: str) -> Response:
    """Forget one problem: no request is shown it any more, those of other processes after `CONSILIUM_REGISTRY_POLL_S`."""
    await services.memory.delete(problem_id)
    return no_content()


def problem_view(problem: SolvedProblem) -> Json:
    """One problem as JSON; its vector is never shown."""
    return {
        "id": problem.id,
        "tenant": problem.tenant,
        "question": problem.question,
        "answer": problem.answer,
        "skills": list(problem.skills),
        "source": problem.source,
        "expert": problem.expert_id,
        "trace_id": problem.trace_id,
        "feedback_id": problem.feedback_id,
        "created_at": problem.created_at,
        "used_at": problem.used_at,
    }
