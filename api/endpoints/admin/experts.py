"""``/admin/api/experts``."""

from __future__ import annotations

import builtins
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.discovery import Found, found_models
from api.endpoints.admin.queries import query_of
from api.endpoints.admin.resources import Body, Json, Version, described_by, require_known
from api.endpoints.admin.versioned import VersionedResource
from api.explain import usage_object
from api.json_response import json_response
from api.openapi import answers, asks
from api.schemas.admin import DiscoverBody
from api.schemas.admin_answers import SERVED_OF_EXPERTS, CheckTold, Discovered, ExpertTold, PageOf
from api.schemas.admin_queries import ExpertsQuery
from api.services import Services
from domain.errors import ExpertError, InvalidRequest
from domain.experts import ExpertCard
from domain.plan import Candidate, ExpertFailure, Outcome
from experts_registry.manifest import parse
from experts_registry.models import ExpertModel
from orchestrator.aggregation.prompts import TEMPLATES

if TYPE_CHECKING:
    from experts_registry.experts import Declared, ExpertStore

router = APIRouter(prefix="/experts")
_SCHEMA, _PATCH = described_by(ExpertModel), described_by(ExpertModel, partial=True)


def _body_of(card: ExpertCard) -> Json:
    return ExpertModel.from_card(card).model_dump(mode="json")


def require_prompt(card: ExpertCard) -> None:
    """Raise ``InvalidRequest`` when there is no such template: every panel that the expert fuses would be refused."""
    require_known([card.aggregation_prompt], TEMPLATES, kind="aggregation prompt", param="aggregation_prompt")


def card_of(body: Json) -> ExpertCard:
    """The card that *body* declares. Raises ``InvalidRequest`` that names each wrong field."""
    card = parse(ExpertModel, body).to_card()
    require_prompt(card)
    return card


class _DeclaringStore:
    """The expert store as one request uses it; remembers what else changed by it."""

    def __init__(self, store: ExpertStore) -> None:
        self._store = store
        self.written: Declared | None = None
        """None until something was written."""

    async def list(self) -> builtins.list[ExpertCard]:
        return await self._store.list()

    async def get(self, expert_id: str) -> ExpertCard:
        return await self._store.get(expert_id)

    async def create(self, card: ExpertCard) -> ExpertCard:
        return self._kept(await self._store.declare(card))

    async def replace(self, card: ExpertCard, if_version: int | None = None) -> ExpertCard:
        return self._kept(await self._store.redeclare(card, if_version))

    async def delete(self, expert_id: str, if_version: int | None = None) -> None:
        await self._store.delete(expert_id, if_version)

    def _kept(self, declared: Declared) -> ExpertCard:
        self.written = declared
        return declared.card


def _resource(services: ServicesDep) -> VersionedResource[ExpertCard]:
    store = _DeclaringStore(services.expert_store)

    def view(card: ExpertCard) -> Json:
        health = {
            "state": services.directory.health_of(card.id).value,
            "in_flight": services.workers.in_flight(card.id),
            "queued": services.workers.queued(card.id),
        }
        return {**_body_of(card), "health": health, **_told(store.written)}

    return VersionedResource(
        kind="expert",
        path="/admin/api/experts",
        store=store,
        item_of=card_of,
        body_of=_body_of,
        view_of=view,
        served=SERVED_OF_EXPERTS,
        changed=services.directory.refresh,
    )


def _told(written: Declared | None) -> Json:
    return {} if written is None else {"new_skills": list(written.new_skills), "num_outdated": written.num_outdated}


Resource = Annotated[VersionedResource[ExpertCard], Depends(_resource)]


@router.get("", openapi_extra=asks(ExpertsQuery), responses=answers(PageOf[ExpertTold]))
async def list_experts(
    services: ServicesDep, resource: Resource, asked: Annotated[ExpertsQuery, Depends(query_of(ExpertsQuery))]
) -> Response:
    """The experts, each with its health in this process: circuit, calls in flight and waiting."""

    def keep(card: ExpertCard) -> bool:
        return (
            (asked.backend is None or card.backend is asked.backend)
            and (asked.skill is None or asked.skill in card.skills)
            and (asked.enabled is None or card.enabled is asked.enabled)
            and (asked.health is None or services.directory.health_of(card.id) is asked.health)
        )

    return await resource.page(asked, keep)


@router.post("", status_code=201, openapi_extra=_SCHEMA, responses=answers(ExpertTold, 201))
async def create_expert(resource: Resource, body: Body) -> Response:
    """Add an expert; it can be asked at once. Declared skills that nobody knew become known (`new_skills` tells them); one that
    looks like a misspelling of a known skill is a 400. 409 when the id is taken."""
    return await resource.create(body)


@router.post("/discover", openapi_extra=described_by(DiscoverBody), responses=answers(Discovered))
async def discover_experts(services: ServicesDep, body: Body) -> Response:
    """The models of an OpenAI-compatible server as ready-made cards, each `new`, `known`, or `invalid` with a `problem` that says what
    no card may have. With `save` the new ones are added, all of them or none."""
    asked = parse(DiscoverBody, body)
    base_url = asked.base_url.rstrip("/")
    models = await services.workers.discover(base_url, asked.api_key)
    rows = [_found_row(found) for found in found_models(models, base_url, asked.api_key, await services.expert_store.list())]
    if asked.save:
        new = [row for row in rows if row["state"] == "new"]
        added = await services.expert_store.declare_all([card_of(row["card"]) for row in new])
        await services.directory.refresh()
        for row, declared in zip(new, added, strict=True):
            row |= {"card": _body_of(declared.card), "state": "added"}
    return json_response({"base_url": base_url, "data": rows})


def _found_row(found: Found) -> Json:
    """*found* for the answer; a new card that POST would refuse is told as such, and keeps nobody from the others."""
    row: Json = {"card": _body_of(found.card), "state": found.state}
    if found.state == "new":
        try:
            card_of(row["card"])
        except InvalidRequest as error:
            row |= {"state": "invalid", "problem": error.message}
    return row


@router.get("/{expert_id}", responses=answers(ExpertTold))
async def get_expert(resource: Resource, expert_id: str) -> Response:
    return await resource.get(expert_id)


@router.put("/{expert_id}", openapi_extra=_SCHEMA, responses=answers(ExpertTold, 200, 201))
async def put_expert(resource: Resource, expert_id: str, body: Body, version: Version) -> Response:
    """Replace an expert, or add it when there is none. With `If-Match`, 412 when it was changed meanwhile. Where the expert may answer
    differently now (model, adapter, backend, sampling, extra_body), what was measured of the old card counts no more: `num_outdated` tells
    of how many questions. It counts again when that card comes back."""
    return await resource.put(expert_id, body, version)


@router.patch("/{expert_id}", openapi_extra=_PATCH, responses=answers(ExpertTold))
async def patch_expert(resource: Resource, expert_id: str, body: Body, version: Version) -> Response:
    """Change some fields (JSON merge patch). With `If-Match`, 412 when it was changed meanwhile."""
    return await resource.patch(expert_id, body, version)


@router.delete("/{expert_id}", status_code=204)
async def delete_expert(resource: Resource, expert_id: str, version: Version) -> Response:
    """Remove an expert; 409 while a strategy names it. What was measured about it counts again when it comes back."""
    return await resource.delete(expert_id, version)


@router.post("/{expert_id}/check", responses=answers(CheckTold))
async def check_expert(services: ServicesDep, expert_id: str) -> Response:
    """One tiny call for real. Always 200: whether the expert answered is in `ok`. Its health learns from it."""
    card = await services.expert_store.get(expert_id)
    began = perf_counter()
    outcome = await _checked(services, card)
    result: Json = {"expert": card.id, "latency_ms": round((perf_counter() - began) * 1e3, 2)}
    match outcome:
        case Candidate():
            result |= {"ok": True, "answer": outcome.text, "usage": usage_object(outcome.usage), "error": None}
        case ExpertFailure():
            result |= {"ok": False, "answer": None, "usage": None, "error": {"code": outcome.code, "message": outcome.message}}
    services.directory.record(outcome)
    return json_response({**result, "health": services.directory.health_of(card.id).value})


async def _checked(services: Services, card: ExpertCard) -> Outcome:
    try:
        return await services.workers.check(card)
    except ExpertError as error:
        return ExpertFailure(card.id, error.code, error.message, expert_at_fault=error.expert_at_fault)
