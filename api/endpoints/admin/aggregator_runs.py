"""``/admin/api/aggregator-runs``: who finds the right answer among wrong ones? Their results are ``aggregator-profiles``.

A run lives in the process that does it, and is forgotten with it; it takes minutes, and starting again loses nothing.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict

from fastapi import APIRouter, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.measurement import chosen_experts, grader_with, require_skills, start_aggregator_run
from api.endpoints.admin.queries import PAGED, Page
from api.endpoints.admin.question_choice import choose
from api.endpoints.admin.resources import Json, OptionalBody, described_by, etag_of, no_content, one, page
from api.endpoints.admin.run_tasks import RunTask, RunTasksDep
from api.openapi import answers
from api.schemas.admin import AggregatorRunBody
from api.schemas.admin_answers import AggregatorRunTold, PageOf
from domain.experts import ExpertRole
from evaluation.aggregator_benchmark import build_items
from evaluation.sweep import SweepLimits
from experts_registry.manifest import parse

router = APIRouter(prefix="/aggregator-runs")

PREFIX = "aggregators-"


@router.get("", openapi_extra=PAGED, responses=answers(PageOf[AggregatorRunTold]))
async def list_runs(tasks: RunTasksDep, asked: Page) -> Response:
    """The aggregator runs of this process."""
    return page(tasks.all(PREFIX), lambda run: run.id, _view, asked)


@router.post("", status_code=202, openapi_extra=described_by(AggregatorRunBody, required=False), responses=answers(AggregatorRunTold, 202))
async def start_run(services: ServicesDep, tasks: RunTasksDep, body: OptionalBody) -> Response:
    """Start a benchmark in the background. Its candidates are the answers that profile runs have recorded."""
    given = parse(AggregatorRunBody, body)
    experts = await chosen_experts(services, given.experts, ExpertRole.AGGREGATOR)
    questions = await services.question_store.list()
    require_skills(given.skills, questions)
    items = build_items(
        choose(questions, skills=given.skills),
        await services.profile_store.outcomes(),
        seed=given.seed,
        min_wrong=given.min_wrong,
        max_per_category=given.max_per_category,
    )
    run_id = f"{PREFIX}{uuid.uuid4().hex[:16]}"
    grader = await grader_with(services, given.judge)
    limits = SweepLimits(max_in_flight=given.max_in_flight)
    start_aggregator_run(services, tasks, run_id, experts=experts, items=items, grader=grader, limits=limits)
    view = _view(tasks.get(run_id))
    return one(view, etag_of(view), status=202, location=f"/admin/api/aggregator-runs/{run_id}")


@router.get("/{run_id}", responses=answers(AggregatorRunTold))
async def get_run(tasks: RunTasksDep, run_id: str) -> Response:
    view = _view(tasks.get(run_id))
    return one(view, etag_of(view))


@router.post("/{run_id}/cancel", responses=answers(AggregatorRunTold))
async def cancel_run(tasks: RunTasksDep, run_id: str) -> Response:
    """Stop a benchmark; what was measured before stays as it was."""
    run = tasks.get(run_id)
    await tasks.cancel(run_id)
    view = _view(run)
    return one(view, etag_of(view))


@router.delete("/{run_id}", status_code=204)
async def delete_run(tasks: RunTasksDep, run_id: str) -> Response:
    """Stop a benchmark, if it still runs, and forget it."""
    tasks.get(run_id)
    await tasks.cancel(run_id)
    tasks.forget(run_id)
    return no_content()


def _view(run: RunTask) -> Json:
    return {
        "id": run.id,
        "status": run.status,
        "num_planned": sum(told.num_total for told in run.progress.values()),
        "num_recorded": run.num_done,
        "num_correct": run.num_correct,
        "error": run.error,
        "progress": [asdict(told) for told in run.progress.values()],
    }
