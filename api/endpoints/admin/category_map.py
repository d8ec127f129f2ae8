"""``/admin/api/category-map``: which experts to keep at a budget, and who serves which category."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.queries import query_of
from api.endpoints.admin.resources import require_known
from api.json_response import json_response
from api.openapi import answers, asks
from api.schemas.admin_answers import CategoryMapTold
from api.schemas.admin_queries import CategoryMapQuery
from api.services import Services
from domain.experts import ExpertRole
from domain.skills import LabelledQuestion
from routers.learned.category_report import options_of, report

router = APIRouter(prefix="/category-map")


@router.get("", openapi_extra=asks(CategoryMapQuery), responses=answers(CategoryMapTold))
async def get_category_map(services: ServicesDep, asked: Annotated[CategoryMapQuery, Depends(query_of(CategoryMapQuery))]) -> Response:
    """The map that the router `category` would use, of the enabled experts' graded answers to the labelled questions: solved
    exactly under the budget. Changes nothing."""
    services.readiness.require("encoder")
    cards = [card for card in await services.expert_store.list() if card.enabled and ExpertRole.CANDIDATE in card.roles]
    if asked.generalist is not None:
        require_known([asked.generalist], [card.id for card in cards], kind="expert", param="generalist")
    options = options_of(cards, budget_b=asked.budget_b, budget_mb=asked.budget_mb, generalist=asked.generalist)
    questions = await services.question_store.list()
    outcomes = await services.profile_store.outcomes()
    vectors = await _encoded(services, questions)
    return json_response(await asyncio.to_thread(report, cards, questions, outcomes, vectors, options))


async def _encoded(services: Services, questions: Sequence[LabelledQuestion]) -> list[bytes]:
    """The vectors of *questions* row by row: the stored ones, and new ones of those that have none."""
    known = await services.question_store.vectors(services.encoder.encoder_id)
    size = 4 * services.encoder.dimensions
    missing = [question for question in questions if len(known.get(question.id, b"")) != size]
    made = dict(known)
    if missing:
        encoded = await services.encoder.encode([question.question for question in missing])
        made |= {question.id: vector.astype("<f4").tobytes() for question, vector in zip(missing, encoded, strict=True)}
    return [made[question.id] for question in questions]
