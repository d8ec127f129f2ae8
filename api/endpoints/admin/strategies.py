"""``/admin/api/strategies``."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.dependencies import ReadyServices, ServicesDep
from api.disconnect import unless_gone
from api.endpoints.admin.calibration import run_cascade
from api.endpoints.admin.measurement import grader_with, require_skills
from api.endpoints.admin.queries import PAGED, Page
from api.endpoints.admin.question_choice import choose
from api.endpoints.admin.resources import Body, Json, OptionalBody, Version, described_by, require_known
from api.endpoints.admin.versioned import VersionedResource
from api.json_response import json_response
from api.openapi import answers
from api.schemas.admin import CalibrateBody
from api.schemas.admin_answers import Calibrated, PageOf, StrategyTold
from api.services import Services
from domain.errors import InvalidRequest
from domain.strategy import Strategy
from evaluation.cascade import calibrate
from experts_registry.manifest import parse
from experts_registry.models import StrategyModel
from orchestrator.aggregation.catalogue import AGGREGATORS
from orchestrator.modes.catalogue import MODES, check_strategy

router = APIRouter(prefix="/strategies")
_SCHEMA, _PATCH = described_by(StrategyModel), described_by(StrategyModel, partial=True)
_SERVED = frozenset({"version"})
CASCADE = "cascade"
"""The router whose strategies have a threshold."""


def require_usable(strategy: Strategy, services: Services) -> None:
    """Raise ``InvalidRequest`` for what every request would be refused for: a router or aggregator that this service does not
    have, options that the router does not take, adjustments that it cannot make. The experts that it names are the store's to check."""
    require_known([strategy.router], services.routers, kind="router", param="router")
    require_known([strategy.aggregator], AGGREGATORS, kind="aggregator", param="aggregator")
    require_known([strategy.mode], MODES, kind="mode", param="mode")
    check_strategy(strategy)
    services.routers.check(strategy)


def _body_of(strategy: Strategy) -> Json:
    return StrategyModel.from_strategy(strategy).model_dump(mode="json")


def _resource(services: ServicesDep) -> VersionedResource[Strategy]:
    def item_of(body: Json) -> Strategy:
        strategy = parse(StrategyModel, body).to_strategy()
        require_usable(strategy, services)
        return strategy

    return VersionedResource(
        kind="strategy",
        path="/admin/api/strategies",
        store=services.strategy_store,
        item_of=item_of,
        body_of=_body_of,
        view_of=_body_of,
        served=_SERVED,
        changed=services.directory.refresh,
    )


Resource = Annotated[VersionedResource[Strategy], Depends(_resource)]


@router.get("", openapi_extra=PAGED, responses=answers(PageOf[StrategyTold]))
async def list_strategies(resource: Resource, asked: Page) -> Response:
    """The named recipes; each is the model `consilium/<id>`."""
    return await resource.page(asked)


@router.post("", status_code=201, openapi_extra=_SCHEMA, responses=answers(StrategyTold, 201))
async def create_strategy(resource: Resource, body: Body) -> Response:
    """Add a strategy; it can be asked at once. 409 when the id is taken."""
    return await resource.create(body)


@router.get("/{strategy_id}", responses=answers(StrategyTold))
async def get_strategy(resource: Resource, strategy_id: str) -> Response:
    return await resource.get(strategy_id)


@router.put("/{strategy_id}", openapi_extra=_SCHEMA, responses=answers(StrategyTold, 200, 201))
async def put_strategy(resource: Resource, strategy_id: str, body: Body, version: Version) -> Response:
    """Replace a strategy, or add it when there is none. With `If-Match`, 412 when it was changed meanwhile."""
    return await resource.put(strategy_id, body, version)


@router.patch("/{strategy_id}", openapi_extra=_PATCH, responses=answers(StrategyTold))
async def patch_strategy(resource: Resource, strategy_id: str, body: Body, version: Version) -> Response:
    """Change some fields (JSON merge patch). With `If-Match`, 412 when it was changed meanwhile."""
    return await resource.patch(strategy_id, body, version)


@router.post("/{strategy_id}/calibrate", openapi_extra=described_by(CalibrateBody, required=False), responses=answers(Calibrated))
async def calibrate_strategy(request: Request, services: ReadyServices, strategy_id: str, body: OptionalBody) -> Response:
    """Run a cascade on labelled questions, every expert on each, and keep the threshold that scores best within the target. Answers when
    that is done; 200 questions at most unless `limit` says more. Nothing is traced and no profile changes."""
    given = parse(CalibrateBody, body)
    strategy = await services.strategy_store.get(strategy_id)
    if strategy.router != CASCADE:
        raise InvalidRequest(
            f"the strategy {strategy_id!r} has the router {strategy.router!r}: only a cascade has a threshold", param="router"
        )
    stored = await services.question_store.list()
    if given.questions is not None:
        require_known(given.questions, [question.id for question in stored], kind="labelled question", param="questions")
    require_skills(given.skills, stored)
    grader = await grader_with(services, given.judge)
    questions = choose(stored, ids=given.questions, skills=given.skills, limit=given.limit)
    for question in questions:
        grader.check(question)
    ran = await unless_gone(request, run_cascade(services, strategy_id, questions, grader, max_in_flight=given.max_in_flight))
    found = calibrate(ran[0], target_cost=given.target_cost, escalation_rate=given.escalation_rate)
    if not given.dry_run:
        options = {**strategy.router_options, "threshold": round(found.chosen.threshold, 6)}
        await services.strategy_store.replace(replace(strategy, router_options=options), if_version=strategy.version)
        await services.directory.refresh()
    return json_response(
        {
            "strategy": strategy_id,
            "stored": not given.dry_run,
            **asdict(found),
            "threshold_before": strategy.router_options.get("threshold"),
            "num_without_cascade": ran[1],
        }
    )


@router.delete("/{strategy_id}", status_code=204)
async def delete_strategy(resource: Resource, strategy_id: str, version: Version) -> Response:
    """Remove a strategy. `auto` falls back to the built-in one."""
    return await resource.delete(strategy_id, version)
