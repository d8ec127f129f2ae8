"""``/admin/api/feedback`` and ``/admin/api/feedback-profiles``: what users said, and what it adds up to."""

from __future__ import annotations

import time
import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.queries import PAGED, Page, query_of
from api.endpoints.admin.resources import Json, etag_of, one, page, page_response, place_in, require_known
from api.endpoints.feedback import feedback_view
from api.json_response import json_response
from api.openapi import answers, asks
from api.schemas.admin_answers import FeedbackProfileTold, PageOf
from api.schemas.admin_queries import FeedbackQuery
from api.schemas.answers import FeedbackEvent
from domain.feedback import ExpertFeedback, Feedback, Tally

router = APIRouter()


@router.get("/feedback", openapi_extra=asks(FeedbackQuery), responses=answers(PageOf[FeedbackEvent]))
async def list_feedback(services: ServicesDep, asked: Annotated[FeedbackQuery, Depends(query_of(FeedbackQuery))]) -> Response:
    """What was said, newest first: every update of what is learnt, with what it says of which expert."""
    found = await services.feedback_store.list(
        request_id=asked.request_id,
        expert_id=asked.expert,
        rolled_back=None if asked.status is None else asked.status == "rolled_back",
        limit=asked.limit + 1,
        before=None if asked.cursor is None else place_in(asked.cursor),
    )
    shown = found[: asked.limit]
    return page_response([dict(feedback_view(event)) for event in shown], str(shown[-1].sequence) if len(found) > len(shown) else None)


@router.get("/feedback/{feedback_id}", responses=answers(FeedbackEvent))
async def get_feedback(services: ServicesDep, feedback_id: str) -> Response:
    """One event."""
    view = dict(feedback_view(await services.feedback_store.get(feedback_id)))
    return one(view, etag_of(view))


@router.post("/feedback/{feedback_id}/rollback", responses=answers(FeedbackEvent))
async def roll_back_feedback(services: ServicesDep, feedback_id: str) -> Response:
    """Take it back: what was learnt from it is forgotten, also by routers that learn online, and a problem that it
    let into the memory is deleted. Doing it twice changes nothing."""
    view = dict(feedback_view(await services.feedback.roll_back(feedback_id)))
    await services.memory.taken_back(feedback_id)
    return one(view, etag_of(view))


@router.get("/feedback-profiles", openapi_extra=PAGED, responses=answers(PageOf[FeedbackProfileTold]))
async def list_feedback_profiles(services: ServicesDep, asked: Page) -> Response:
    """What feedback says of each expert: counts, prequential accuracy over the last answers, whether it answers worse than it used to,
    and whether its figures have settled."""
    view = await services.feedback.refresh()
    return page(list(view.experts.values()), lambda found: found.expert_id, _profile, asked)


@router.post("/feedback-profiles/{expert_id}/reset", responses=answers(FeedbackEvent))
async def reset_feedback_profile(services: ServicesDep, expert_id: str) -> Response:
    """Begin anew with one expert, one that was replaced for instance: what was said of it so far no longer counts. The reset is an event
    of its own and can be rolled back like any other."""
    view = await services.feedback.refresh()
    known = {*view.experts, *services.directory.snapshot().experts}
    require_known([expert_id], known, kind="expert", param="expert_id")
    name = f"reset-{uuid.uuid4().hex}"
    event = Feedback(name, request_id=name, trace_id="", created_at=time.time(), given={"reset": expert_id}, resets=expert_id)
    return json_response(feedback_view(await services.feedback.give(event)))


def _profile(found: ExpertFeedback) -> Json:
    return {
        "expert": found.expert_id,
        "num_feedback": found.num_feedback,
        "accuracy": found.accuracy,
        "surprise": None if found.surprise is None else round(found.surprise, 6),
        "window": found.window,
        "drifted": found.drifted,
        "usual": found.usual,
        "drifted_at": found.drifted_at,
        "num_alarms": found.num_alarms,
        "frozen": found.frozen,
        "overall": _tally(found.overall),
        "skills": [{"skill": skill, **_tally(tally)} for skill, tally in sorted(found.by_skill.items())],
        "categories": [{"category": category, **_tally(tally)} for category, tally in sorted(found.by_category.items())],
    }


def _tally(tally: Tally) -> Json:
    accuracy = None if tally.accuracy is None else round(tally.accuracy, 6)
    return {"num_answered": round(tally.num_answered, 4), "num_correct": round(tally.num_correct, 4), "accuracy": accuracy}
