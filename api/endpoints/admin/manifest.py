"""``/admin/api/manifest``: experts, strategies and skills as one file."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.audit_middleware import CHANGED_NOTHING
from api.dependencies import ServicesDep
from api.endpoints.admin.experts import require_prompt
from api.endpoints.admin.queries import query_of
from api.endpoints.admin.resources import Body, described_by
from api.endpoints.admin.strategies import require_usable
from api.json_response import json_response
from api.openapi import answers, answers_with, asks
from api.schemas.admin import ManifestBody
from api.schemas.admin_answers import Applied
from api.schemas.admin_queries import ApplyQuery
from experts_registry.apply import apply
from experts_registry.manifest import export, load_manifest, parse

router = APIRouter(prefix="/manifest")


@router.get("", response_class=Response, responses=answers_with("application/yaml", type="object"))
async def get_manifest(services: ServicesDep) -> Response:
    """The registry as YAML, which POST takes back."""
    cards, strategies = await services.expert_store.list(), await services.strategy_store.list()
    skills = {skill.name: skill.description for skill in await services.skill_store.list()}
    return Response(await asyncio.to_thread(export, cards, strategies, skills), media_type="application/yaml")


@router.post("", openapi_extra={**described_by(ManifestBody), **asks(ApplyQuery)}, responses=answers(Applied))
async def apply_manifest(
    services: ServicesDep, request: Request, body: Body, asked: Annotated[ApplyQuery, Depends(query_of(ApplyQuery))]
) -> Response:
    """Make the registry what a manifest says: all of it or nothing."""
    text = parse(ManifestBody, body).yaml
    manifest = await asyncio.to_thread(load_manifest, text)  # of a thousand cards it takes most of a second
    for card in manifest.to_cards():
        require_prompt(card)
    for strategy in manifest.to_strategies():
        require_usable(strategy, services)
    check_card = services.expert_store.check_card
    changes = await apply(services.database, manifest, prune=asked.prune, dry_run=asked.dry_run, check_card=check_card)
    if asked.dry_run or not changes.any:
        request.scope[CHANGED_NOTHING] = True  # a stack that applies its file at every start would fill the audit log with it
    if not asked.dry_run:
        await services.directory.refresh()
    return json_response({**asdict(changes), "dry_run": asked.dry_run})
