"""``/admin/api/profile-runs``: measurements of experts over labelled questions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.counts import summary_view
from api.endpoints.admin.measurement import chosen_experts, grader_with, require_skills, start_profile_run
from api.endpoints.admin.queries import PAGED, Page, query_of
from api.endpoints.admin.question_choice import choose
from api.endpoints.admin.resources import (
    Body,
    Json,
    OptionalBody,
    Version,
    described_by,
    etag_of,
    no_content,
    one,
    page,
    require_known,
)
from api.endpoints.admin.run_tasks import RunTask, RunTasks, RunTasksDep
from api.json_response import json_response
from api.openapi import answers, asks
from api.schemas.admin import ImportBody, ProfileRunBody, ResumeBody
from api.schemas.admin_answers import AggregatorsImported, OutcomeTold, PageOf, RunRow, RunTold
from api.schemas.admin_queries import RunsQuery
from api.services import Services
from domain.errors import Conflict, InvalidRequest, Overloaded
from domain.evaluation import AggregatorOutcome, ProfileRunRecord, QuestionOutcome, RunState
from domain.experts import ExpertRole
from evaluation.summary import summarise
from evaluation.sweep import SweepLimits
from experts_registry.manifest import parse

router = APIRouter(prefix="/profile-runs")

OPEN = "open"
"""Status of a run that takes more answers but is not worked on by this process: interrupted, or another process's."""


@router.get("", openapi_extra=asks(RunsQuery), responses=answers(PageOf[RunRow]))
async def list_runs(services: ServicesDep, tasks: RunTasksDep, asked: Annotated[RunsQuery, Depends(query_of(RunsQuery))]) -> Response:
    """The runs, oldest first. `open` is a run that was interrupted, or that another process works on: it can be resumed."""
    active = tasks.active()
    rows = [_view(run, tasks.find(run.id), active=run.id in active) for run in await services.profile_store.list_runs()]
    kept = [row for row in rows if asked.status is None or row["status"] == asked.status]
    return page(kept, lambda row: f"{row['created_at']:020.6f} {row['id']}", lambda row: row, asked)


@router.post("", status_code=202, openapi_extra=described_by(ProfileRunBody), responses=answers(RunTold, 202))
async def start_run(services: ServicesDep, tasks: RunTasksDep, body: Body) -> Response:
    """Start a run in the background: 202, and its address to look at."""
    given = parse(ProfileRunBody, body)
    experts = await chosen_experts(services, given.experts, ExpertRole.CANDIDATE)
    stored = await services.question_store.list()
    if given.questions is not None:
        require_known(given.questions, [question.id for question in stored], kind="labelled question", param="questions")
    require_skills(given.skills, stored)
    questions = choose(stored, ids=given.questions, skills=given.skills, limit=given.limit)
    if not questions:
        raise InvalidRequest("there are no labelled questions to ask: add some first (POST /admin/api/questions)", param="questions")
    grader = await grader_with(services, given.judge)
    for question in questions:
        grader.check(question)
    tasks.require_room()
    run_id = await services.profile_store.create_run([card.id for card in experts], [q.id for q in questions], given.note)
    limits = SweepLimits(max_in_flight=given.max_in_flight)
    try:
        start_profile_run(services, tasks, run_id, experts=experts, questions=questions, grader=grader, limits=limits)
    except Overloaded:  # another run took the last place meanwhile: leave nothing behind that looks interrupted
        await services.profile_store.rollback_run(run_id)
        raise
    return await _one(services, tasks, run_id, status=202)


@router.post("/import", status_code=201, openapi_extra=described_by(ImportBody), responses=answers(RunTold | AggregatorsImported, 201))
async def import_outcomes(services: ServicesDep, tasks: RunTasksDep, body: Body) -> Response:
    """Outcomes measured elsewhere, all of them or none; they count at once. Graded answers become a finished run of their own, which can
    be rolled back. Aggregators' answers belong to no run: they replace what these experts had as aggregators."""
    given = parse(ImportBody, body)
    if not given.outcomes and not given.aggregator_outcomes:
        raise InvalidRequest("there is nothing to import: outcomes and aggregator_outcomes are empty", param="outcomes")
    experts = [card.id for card in await services.expert_store.list()]
    require_known([row.expert_id for row in given.outcomes], experts, kind="expert", param="outcomes")
    require_known([row.expert_id for row in given.aggregator_outcomes], experts, kind="expert", param="aggregator_outcomes")
    run_id = await services.profile_store.import_outcomes(
        [QuestionOutcome(**{**row.model_dump(), "skills": tuple(row.skills)}) for row in given.outcomes],
        [AggregatorOutcome(**row.model_dump()) for row in given.aggregator_outcomes],
        given.note,
    )
    await services.directory.refresh()
    if run_id is None:
        return json_response({"num_aggregator_outcomes": len(given.aggregator_outcomes)}, status=201)
    return await _one(services, tasks, run_id, status=201)


@router.get("/{run_id}", responses=answers(RunTold))
async def get_run(services: ServicesDep, tasks: RunTasksDep, run_id: str) -> Response:
    """One run: progress per expert while it runs here, else what it came to."""
    return await _one(services, tasks, run_id)


@router.get("/{run_id}/outcomes", openapi_extra=PAGED, responses=answers(PageOf[OutcomeTold]))
async def list_run_outcomes(services: ServicesDep, asked: Page, run_id: str) -> Response:
    """Every graded answer of a run."""
    return page(await services.profile_store.outcomes(run_id), lambda o: f"{o.expert_id} {o.question_id}", asdict, asked)


@router.post("/{run_id}/resume", status_code=202, openapi_extra=described_by(ResumeBody, required=False), responses=answers(RunTold, 202))
async def resume_run(services: ServicesDep, tasks: RunTasksDep, run_id: str, body: OptionalBody) -> Response:
    """Go on with an open run: ask what has no answer yet. Experts and questions that are gone meanwhile are left out."""
    given = parse(ResumeBody, body)
    run = await services.profile_store.get_run(run_id)
    if run.state is not RunState.RUNNING:
        raise Conflict(f"profile run {run_id!r} is {run.state.value.replace('_', ' ')}: start a new one")
    experts = [card for card in await services.expert_store.list() if card.id in set(run.expert_ids)]
    questions = choose(await services.question_store.list(), ids=set(run.question_ids))
    if not experts or not questions:
        raise Conflict(f"the experts or questions of profile run {run_id!r} are all gone: take it back with DELETE")
    grader = await grader_with(services, given.judge)
    limits = SweepLimits(max_in_flight=given.max_in_flight)
    start_profile_run(services, tasks, run_id, experts=experts, questions=questions, grader=grader, limits=limits)
    return await _one(services, tasks, run_id, status=202)


@router.post("/{run_id}/cancel", responses=answers(RunTold))
async def cancel_run(services: ServicesDep, tasks: RunTasksDep, run_id: str) -> Response:
    """Stop a run. What it has recorded counts; it can be resumed, or taken back with DELETE."""
    active = tasks.active()
    run = await services.profile_store.get_run(run_id)
    if run_id not in active:
        status = _status(run, active=False)
        raise Conflict(f"profile run {run_id!r} does not run in this process (it is {status}): there is nothing to cancel")
    await tasks.cancel(run_id)
    await services.directory.refresh()
    return await _one(services, tasks, run_id)


@router.delete("/{run_id}", status_code=204)
async def roll_back_run(services: ServicesDep, tasks: RunTasksDep, run_id: str, version: Version) -> Response:
    """Take a run back: its counts leave the profiles, and what it replaced counts again. Its answers stay readable."""
    active = tasks.active()

    def is_at_version(run: ProfileRunRecord) -> None:
        version.check(etag_of(_view(run, tasks.find(run_id), active=run_id in active)), f"profile run {run_id!r}")

    await services.profile_store.rollback_run(run_id, require=is_at_version)
    await tasks.cancel(run_id)  # afterwards: what it still has to write is refused, and was not wanted
    await services.directory.refresh()
    return no_content()


async def _one(services: Services, tasks: RunTasks, run_id: str, *, status: int = 200) -> Response:
    active = tasks.active()
    run, task = await services.profile_store.get_run(run_id), tasks.find(run_id)
    view = _view(run, task, active=run_id in active)
    tag = etag_of(view)
    if task is not None and view["status"] == RunState.RUNNING:
        view["progress"] = [asdict(told) for told in task.progress.values()]
    else:
        stopped = task.stopped if task is not None else {}
        summaries = summarise(await services.profile_store.outcomes(run_id), stopped=stopped)
        view["summary"] = [summary_view(summary) for summary in summaries.values()]
    return one(view, tag, status=status, location=f"/admin/api/profile-runs/{run_id}" if status in {201, 202} else None)


def _view(run: ProfileRunRecord, task: RunTask | None, *, active: bool) -> Json:
    """*active*: whether it ran here before *run* was read. Asked afterwards, one that ended in between would look interrupted."""
    return {
        "id": run.id,
        "status": _status(run, active=active),
        "note": run.note,
        "created_at": run.created_at,
        "finished_at": run.finished_at,
        "experts": list(run.expert_ids),
        "num_questions": len(run.question_ids),
        "num_planned": run.num_planned,
        # The store knows what is written; while it runs, a little more is known here.
        "num_recorded": max(run.num_recorded, task.num_done) if task is not None and active else run.num_recorded,
        "num_correct": max(run.num_correct, task.num_correct) if task is not None and active else run.num_correct,
        "error": task.error if task is not None else None,
    }


def _status(run: ProfileRunRecord, *, active: bool) -> str:
    return run.state.value if active or run.state is not RunState.RUNNING else OPEN
