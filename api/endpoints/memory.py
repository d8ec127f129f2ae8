"""``/v1/memory``: a caller's own solved problems, to look at and to delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.admission import caller_of
from api.dependencies import StoredServices, require_key
from api.endpoints.admin.memory import problem_view
from api.endpoints.admin.queries import PAGED, Page, query_of
from api.endpoints.admin.resources import no_content, page_response, place_in
from api.json_response import json_response
from api.openapi import ERRORS, answers
from api.schemas.admin_answers import Forgotten, PageOf, SolvedProblemTold
from api.schemas.admin_queries import Query
from domain.errors import NotFound
from domain.memory import tenant_of

router = APIRouter(tags=["memory"], dependencies=[Depends(require_key)])


@router.get("/v1/memory", openapi_extra=PAGED, responses=answers(PageOf[SolvedProblemTold]))
async def list_own_problems(request: Request, services: StoredServices, asked: Page) -> Response:
    """The problems that were solved for your key and called right, the last kept first."""
    before = None if asked.cursor is None else place_in(asked.cursor)
    found = await services.memory.store.list(tenant=_tenant(request), limit=asked.limit + 1, before=before)
    shown = found[: asked.limit]
    return page_response([problem_view(problem) for problem in shown], str(shown[-1].sequence) if len(found) > len(shown) else None)


@router.delete("/v1/memory", responses=answers(Forgotten))
async def clear_own_memory(request: Request, services: StoredServices, _asked: Annotated[Query, Depends(query_of(Query))]) -> Response:
    """Forget all of your key's solved problems."""
    return json_response({"num_deleted": await services.memory.clear(_tenant(request))})


@router.delete("/v1/memory/{problem_id}", status_code=204, responses=ERRORS)
async def delete_own_problem(request: Request, services: StoredServices, problem_id: str) -> Response:
    """Forget one of your key's solved problems; of another's it is not told that there is one."""
    if (await services.memory.store.get(problem_id)).tenant != _tenant(request):
        raise NotFound(f"there is no solved problem {problem_id!r} (any more)", param="id")
    await services.memory.delete(problem_id)
    return no_content()


def _tenant(request: Request) -> str:
    key = caller_of(request).key
    return tenant_of(None if key is None else key.id)
