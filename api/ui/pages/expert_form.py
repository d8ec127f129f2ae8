"""One expert's card: made, changed, cloned."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import Response

from api.rest import path_of
from api.ui.model_forms import fields_of
from api.ui.resource_form import ResourceForm, Sent
from api.ui.visit import Visit, VisitDep, page_router
from domain.keys import Role
from experts_registry.models import ExpertModel
from orchestrator.aggregation.prompts import TEMPLATES

router = page_router(prefix="/experts")

FORM = ResourceForm(
    fields=fields_of(ExpertModel, leave_out={"version"}),
    groups={
        "Who it is": ("id", "backend", "model", "base_url", "api_key", "description", "enabled"),
        "What it is for": ("skills", "exemplars", "labels", "roles", "capabilities"),
        "Size and price": ("context_length", "chars_per_token", "parameters_b", "memory_mb", "price."),
        "A vLLM server of its own (backend vllm, adapters)": ("adapter_of", "serving."),
        "Calls": ("sampling", "extra_body", "max_in_flight", "queue_timeout_s", "timeout_s", "aggregation_prompt"),
    },
    labels={
        "enabled": "Enabled: it may be chosen",
        "price.prompt": "Price of prompts ($ per million tokens)",
        "price.completion": "Price of answers ($ per million tokens)",
    },
    choices=lambda _: {"aggregation_prompt": sorted(TEMPLATES)},
)
_LEAD = "What is left empty has its default. Changes are live as soon as they are saved."
_LIST = ("Experts", "/admin/experts")


@router.get("/new")
async def new_expert(visit: VisitDep) -> Response:
    visit.require(Role.EDITOR)
    cloned = visit.asked("clone")
    view: dict[str, Any] = {}
    if cloned is not None:
        view = await visit.rest.get(path_of("experts", cloned))
        view["id"] = f"{cloned}-copy"[:64]
    return _new(visit, FORM.shown(view), title="Add an expert" if cloned is None else f"A copy of {cloned}")


@router.post("")
async def create_expert(visit: VisitDep) -> Response:
    sent = await FORM.send(visit, "POST", path_of("experts"))
    if sent.made is not None:
        return visit.go(_page(sent.made["id"]), notice="created")
    return _new(visit, FORM.given(visit), title="Add an expert", sent=sent)


def _new(visit: Visit, values: dict[str, Any], *, title: str, sent: Sent | None = None) -> Response:
    return FORM.page(
        visit,
        values,
        title=title,
        lead=_LEAD,
        action="/admin/experts",
        crumbs=[_LIST],
        submit="Add",
        problems=sent.problems if sent else None,
        status=sent.status if sent else 200,
    )


@router.get("/{expert_id}/edit")
async def edit_expert(visit: VisitDep, expert_id: str) -> Response:
    visit.require(Role.EDITOR)
    answer = await visit.rest.ask("GET", path_of("experts", expert_id))
    return _edit(visit, expert_id, FORM.shown(answer.json()), answer.headers["etag"])


@router.post("/{expert_id}/edit")
async def change_expert(visit: VisitDep, expert_id: str) -> Response:
    """The whole card as the form has it, unless somebody else has changed it since the form was opened."""
    version = visit.form.text("version")
    sent = await FORM.send(visit, "PUT", path_of("experts", expert_id), version=version or None)
    if sent.made is not None:
        return visit.go(_page(expert_id), notice="changed")
    return _edit(visit, expert_id, FORM.given(visit), version, sent)


def _edit(visit: Visit, expert_id: str, values: dict[str, Any], version: str, sent: Sent | None = None) -> Response:
    return FORM.page(
        visit,
        values,
        title=f"Edit {expert_id}",
        lead=_LEAD,
        action=f"{_page(expert_id)}/edit",
        crumbs=[_LIST, (expert_id, _page(expert_id))],
        submit="Save",
        problems=sent.problems if sent else None,
        version=version,
        status=sent.status if sent else 200,
    )


def _page(expert_id: str) -> str:
    return f"/admin/experts/{quote(expert_id, safe='')}"
