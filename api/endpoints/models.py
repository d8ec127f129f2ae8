"""``GET /v1/models`` and ``GET /v1/models/{id}``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from api.admission import caller_of
from api.dependencies import ServicesDep, require_key
from api.json_response import json_response
from api.openapi import answers
from api.schemas.answers import ModelList, ModelTold
from domain.access import Access
from domain.errors import NotReady
from domain.experts import ExpertCard
from domain.registry import RegistrySnapshot
from domain.strategy import Strategy
from orchestrator.resolve import model_names, resolve

router = APIRouter(tags=["models"], dependencies=[Depends(require_key)])

_OWNER = "consilium"
_CREATED = 1_764_547_200
"""2025-12-01: OpenAI's ``created`` is required; a registry entry has no birthday that would mean anything to a client."""


@router.get("/v1/models", responses=answers(ModelList))
async def list_models(request: Request, services: ServicesDep) -> Response:
    """Every name that a request with this key may use as `model`: `auto`, strategies, experts."""
    snapshot, access = _snapshot(services), caller_of(request).access
    return json_response({"object": "list", "data": [_model(name, snapshot, services, access) for name in model_names(snapshot, access)]})


@router.get("/v1/models/{model_id:path}", responses=answers(ModelTold))
async def get_model(model_id: str, request: Request, services: ServicesDep) -> Response:
    """One of them. 404 lists the nearest names."""
    return json_response(_model(model_id, _snapshot(services), services, caller_of(request).access))


def _snapshot(services: ServicesDep) -> RegistrySnapshot:
    services.readiness.require("database")
    snapshot = services.directory.snapshot()
    if not snapshot.experts and not snapshot.strategies and not services.readiness.is_ready:
        raise NotReady("the registry is still being read")
    return snapshot


def _model(name: str, snapshot: RegistrySnapshot, services: ServicesDep, access: Access) -> dict[str, Any]:
    target = resolve(name, snapshot, access)
    about = _expert(target.expert, services) if target.expert else _strategy(target.strategy)
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": _OWNER, _OWNER: about}


def _strategy(strategy: Strategy) -> dict[str, Any]:
    return {
        "kind": "strategy",
        "strategy": strategy.id,
        "description": strategy.description,
        "router": strategy.router,
        "pick": {"kind": strategy.pick.kind, "k": strategy.pick.k},
        "aggregator": strategy.aggregator,
    }


def _expert(card: ExpertCard, services: ServicesDep) -> dict[str, Any]:
    return {
        "kind": "expert",
        "description": card.description,
        "roles": sorted(card.roles),
        "backend": card.backend,
        "skills": list(card.skills),
        "capabilities": sorted(card.capabilities),
        "context_length": card.context_length,
        "health": services.directory.health_of(card.id),
    }
