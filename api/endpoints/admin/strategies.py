"""``/admin/api/strategies``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.queries import PAGED, Page
from api.endpoints.admin.resources import Body, Json, Version, described_by, require_known
from api.endpoints.admin.versioned import VersionedResource
from api.services import Services
from domain.strategy import Strategy
from experts_registry.manifest import parse
from experts_registry.models import StrategyModel
from orchestrator.aggregation.catalogue import AGGREGATORS

router = APIRouter(prefix="/strategies")
_SCHEMA = described_by(StrategyModel)
_SERVED = frozenset({"version"})


def require_usable(strategy: Strategy, services: Services) -> None:
    """Raise ``InvalidRequest`` for what every request would be refused for: a router or aggregator that this service does not
    have, options that the router does not take. The experts that it names are the store's to check."""
    require_known([strategy.router], services.routers, kind="router", param="router")
    require_known([strategy.aggregator], AGGREGATORS, kind="aggregator", param="aggregator")
    services.routers[strategy.router].check_options(strategy.router_options)


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


@router.get("", openapi_extra=PAGED)
async def list_strategies(resource: Resource, asked: Page) -> Response:
    """The named recipes; each is the model `consilium/<id>`."""
    return await resource.page(asked)


@router.post("", status_code=201, openapi_extra=_SCHEMA)
async def create_strategy(resource: Resource, body: Body) -> Response:
    """Add a strategy; it can be asked at once. 409 when the id is taken."""
    return await resource.create(body)


@router.get("/{strategy_id}")
async def get_strategy(resource: Resource, strategy_id: str) -> Response:
    return await resource.get(strategy_id)


@router.put("/{strategy_id}", openapi_extra=_SCHEMA)
async def put_strategy(resource: Resource, strategy_id: str, body: Body, version: Version) -> Response:
    """Replace a strategy, or add it when there is none. With `If-Match`, 412 when it was changed meanwhile."""
    return await resource.put(strategy_id, body, version)


@router.patch("/{strategy_id}", openapi_extra=_SCHEMA)
async def patch_strategy(resource: Resource, strategy_id: str, body: Body, version: Version) -> Response:
    """Change some fields (JSON merge patch). With `If-Match`, 412 when it was changed meanwhile."""
    return await resource.patch(strategy_id, body, version)


@router.delete("/{strategy_id}", status_code=204)
async def delete_strategy(resource: Resource, strategy_id: str, version: Version) -> Response:
    """Remove a strategy. `auto` falls back to the built-in one."""
    return await resource.delete(strategy_id, version)
