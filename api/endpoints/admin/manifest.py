"""``/admin/api/manifest``: experts, strategies and skills as one file."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.resources import Body, described_by, json_response
from api.endpoints.admin.strategies import require_usable
from api.schemas.admin import ManifestBody
from experts_registry.apply import apply
from experts_registry.manifest import export, load_manifest, parse
from experts_registry.stores import Stores

router = APIRouter(prefix="/manifest")


@router.get("", response_class=Response, responses={200: {"content": {"application/yaml": {}}}})
async def get_manifest(services: ServicesDep) -> Response:
    """The registry as YAML, which POST takes back."""
    cards, strategies = await services.expert_store.list(), await services.strategy_store.list()
    skills = {skill.name: skill.description for skill in await services.skill_store.list()}
    return Response(export(cards, strategies, skills), media_type="application/yaml")


@router.post("", openapi_extra=described_by(ManifestBody))
async def apply_manifest(
    services: ServicesDep,
    body: Body,
    prune: Annotated[bool, Query(description="Remove what the manifest does not name.")] = False,
    dry_run: Annotated[bool, Query(description="Only tell what would change.")] = False,
) -> Response:
    """Make the registry what a manifest says: all of it or nothing."""
    manifest = load_manifest(parse(ManifestBody, body).yaml)
    for strategy in manifest.to_strategies():
        require_usable(strategy, services)
    changes = await apply(Stores.of(services.database), manifest, prune=prune, dry_run=dry_run)
    if not dry_run:
        await services.directory.refresh()
    return json_response({**asdict(changes), "dry_run": dry_run})
