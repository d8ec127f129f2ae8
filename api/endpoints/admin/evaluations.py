"""``/admin/api/evaluations``: what strategies are worth on labelled questions, and the reports of that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response

from api.admission import caller_of
from api.dependencies import ServicesDep
from api.endpoints.admin.evaluation_runs import Asked, Evaluations, Run
from api.endpoints.admin.queries import PAGED, Page
from api.endpoints.admin.questions import parsed_questions
from api.endpoints.admin.resources import Body, Json, Version, described_by, etag_of, no_content, one, page, require_known
from api.openapi import answers
from api.rest import Rest, api_client
from api.schemas.admin import EvaluationBody
from api.schemas.admin_answers import EvaluationRow, EvaluationTold, PageOf
from experts_registry.manifest import parse


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Runs end with the service, whose own API they ask."""
    app.state.evaluations = evaluations = Evaluations(app.state.services.settings.data_dir)
    async with api_client(app) as client:
        app.state.evaluations_client = client
        try:
            yield
        finally:
            await evaluations.close()


router = APIRouter(prefix="/evaluations", lifespan=lifespan)


def evaluations_of(request: Request) -> Evaluations:
    """This process's."""
    found: Evaluations = request.app.state.evaluations
    return found


EvaluationsDep = Annotated[Evaluations, Depends(evaluations_of)]


@router.get("", openapi_extra=PAGED, responses=answers(PageOf[EvaluationRow]))
async def list_evaluations(evaluations: EvaluationsDep, asked: Page) -> Response:
    """The newest reports, oldest first, with what runs in this process and what came to nothing there."""
    rows = [_finished(summary) for summary in await evaluations.reports.newest()]
    rows += [_unfinished(run) for run in evaluations.without_report()]
    return page(rows, lambda row: f"{row['created_at']:020.6f} {row['id']}", lambda row: row, asked)


@router.post("", status_code=202, openapi_extra=described_by(EvaluationBody), responses=answers(EvaluationTold, 202))
async def start_evaluation(request: Request, services: ServicesDep, evaluations: EvaluationsDep, body: Body) -> Response:
    """Start one in the background: 202, and its address to look at. Every question goes to every enabled candidate alone and to each
    strategy, in the name of who asks; those that experts were measured on are left out. One runs at a time."""
    given = parse(EvaluationBody, body)
    questions = await asyncio.to_thread(parsed_questions, given.questions)  # however many there are
    known = services.directory.snapshot().strategies
    require_known(given.strategies or (), [one.id for one in known.values() if one.enabled], kind="enabled strategy", param="strategies")
    rest = Rest(request.app.state.evaluations_client, services.auth, caller_of(request), None)
    asked = Asked(given.name, questions, given.strategies, given.calls, given.limit, given.max_in_flight)
    return _told(_unfinished(evaluations.start(rest, asked)), None, status=202)


@router.get("/{evaluation_id}", responses=answers(EvaluationTold))
async def get_evaluation(evaluations: EvaluationsDep, evaluation_id: str) -> Response:
    """One: how far it is while it runs here, afterwards with its `report`."""
    return _told(*await _look(evaluations, evaluation_id))


@router.post("/{evaluation_id}/cancel", responses=answers(EvaluationTold))
async def cancel_evaluation(evaluations: EvaluationsDep, evaluation_id: str) -> Response:
    """End one that runs in this process; its answers are lost. One that is over stays as it is."""
    if (run := evaluations.find(evaluation_id)) is not None:
        await evaluations.cancel(run)
    return _told(*await _look(evaluations, evaluation_id))


@router.delete("/{evaluation_id}", status_code=204)
async def delete_evaluation(evaluations: EvaluationsDep, evaluation_id: str, version: Version) -> Response:
    """Forget one, with its report. 409 while it runs."""
    view, report = await _look(evaluations, evaluation_id)
    version.check(etag_of({**view, "report": report}), f"the evaluation {evaluation_id!r}")
    await evaluations.delete(evaluation_id)
    return no_content()


async def _look(evaluations: Evaluations, evaluation_id: str) -> tuple[Json, Json | None]:
    """Its row and, when there is one, its report. Raises ``NotFound``."""
    if (run := evaluations.find(evaluation_id)) is not None:
        return _unfinished(run), None
    summary, report = await evaluations.reports.get(evaluation_id)
    return _finished(summary), report


def _told(view: Json, report: Json | None, *, status: int = 200) -> Response:
    whole = {**view, "report": report}
    location = f"/admin/api/evaluations/{view['id']}" if status == 202 else None
    return one(whole, etag_of(whole), status=status, location=location)


def _finished(summary: Json) -> Json:
    return {**summary, "status": "finished", "stage": None, "num_done": None, "num_total": None, "error": None}


def _unfinished(run: Run) -> Json:
    return {
        "id": run.id,
        "name": run.name,
        "created_at": run.began_at,
        "num_questions": run.num_questions,
        "num_experts": None,
        "best": None,
        "status": run.status,
        "stage": run.stage,
        "num_done": run.done,
        "num_total": run.total,
        "error": run.error,
    }
