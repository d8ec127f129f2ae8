"""API keys: who may come in, with which rights, within which limits, and what each used. Owners change them."""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from fastapi import Response

from api.rest import path_of
from api.ui.forms import finite
from api.ui.model_forms import fields_of
from api.ui.resource_form import ResourceForm, Sent
from api.ui.visit import Visit, VisitDep, page_router
from domain.errors import InvalidRequest
from domain.keys import Role
from experts_registry.key_models import KeyModel

router = page_router(prefix="/keys")

PAGE = 100
USAGE_DAYS = 30
FORM = ResourceForm(
    fields=fields_of(KeyModel, leave_out={"version"}),
    groups={
        "Whose it is": ("id", "name", "role", "expires_at"),
        "What it may use": ("labels", "experts", "strategies"),
        "How much": ("limits.",),
    },
    labels={"expires_at": "Expires", "limits.usd_per_day": "US dollars a day", "limits.usd_per_month": "US dollars a month"},
)
_LIST = ("Keys", "/admin/keys")


@router.get("")
async def list_keys(visit: VisitDep) -> Response:
    answer = await visit.rest.get(path_of("keys"), limit=PAGE, cursor=visit.asked("cursor"))
    return visit.page("keys.html", keys=answer["data"], next_cursor=answer["next"], has_static=bool(visit.services.settings.api_key_list))


@router.get("/new")
async def new_key(visit: VisitDep) -> Response:
    visit.require(Role.OWNER)
    return _new(visit, FORM.shown({}))


@router.post("")
async def create_key(visit: VisitDep) -> Response:
    """The page that answers is the only place where the secret ever stands."""
    sent = await FORM.send(visit, "POST", path_of("keys"))
    if sent.made is not None:
        return visit.page("key_secret.html", key=sent.made, is_new=True)
    return _new(visit, FORM.given(visit), sent)


def _new(visit: Visit, values: dict[str, Any], sent: Sent | None = None) -> Response:
    return FORM.page(
        visit,
        values,
        title="Create a key",
        lead="Its secret is shown once, on the next page. What is left empty is not limited.",
        action="/admin/keys",
        crumbs=[_LIST],
        submit="Create",
        problems=sent.problems if sent else None,
        status=sent.status if sent else 200,
    )


@router.get("/{key_id}")
async def show_key(visit: VisitDep, key_id: str) -> Response:
    """One key and its use on the last days."""
    key = await visit.rest.get(path_of("keys", key_id))
    since = datetime.fromtimestamp(time.time(), UTC).date() - timedelta(days=USAGE_DAYS - 1)
    rows = (await visit.rest.get(path_of("keys", "usage"), key=key_id, since=since.isoformat()))["data"]
    return visit.page("key.html", key=key, **usage_of(rows, since.isoformat()), notice=visit.asked("notice"))


def usage_of(rows: list[dict[str, Any]], since: str) -> dict[str, Any]:
    """*rows* of the usage report by day (for the chart) and by expert (for the table). Requests stand under the empty expert."""
    first = datetime.fromisoformat(since).date()
    days = [(first + timedelta(days=number)).isoformat() for number in range(USAGE_DAYS)]
    requests: dict[str, int] = defaultdict(int)
    experts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        if not row["expert"]:
            requests[row["day"]] += row["requests"]
            continue
        for name in ("calls", "failed", "prompt_tokens", "completion_tokens", "usd"):
            experts[row["expert"]][name] += row[name]
    chart = {
        "type": "bar",
        "whole": True,
        "y": "requests",
        "labels": [day[5:] for day in days],
        "series": [{"label": "requests", "data": [requests[day] for day in days]}],
    }
    return {"chart": chart, "num_requests": sum(requests.values()), "experts": sorted(experts.items(), key=lambda item: -item[1]["calls"])}


@router.get("/{key_id}/edit")
async def edit_key(visit: VisitDep, key_id: str) -> Response:
    visit.require(Role.OWNER)
    answer = await visit.rest.ask("GET", path_of("keys", key_id))
    return _edit(visit, key_id, FORM.shown(answer.json()), answer.headers["etag"])


@router.post("/{key_id}/edit")
async def change_key(visit: VisitDep, key_id: str) -> Response:
    version = visit.form.text("version")
    sent = await FORM.send(visit, "PUT", path_of("keys", key_id), version=version or None)
    if sent.made is not None:
        return visit.go(_page(key_id), notice="changed")
    return _edit(visit, key_id, FORM.given(visit), version, sent)


def _edit(visit: Visit, key_id: str, values: dict[str, Any], version: str, sent: Sent | None = None) -> Response:
    return FORM.page(
        visit,
        values,
        title=f"Edit {key_id}",
        lead="The secret stays as it is.",
        action=f"{_page(key_id)}/edit",
        crumbs=[_LIST, (key_id, _page(key_id))],
        submit="Save",
        problems=sent.problems if sent else None,
        version=version,
        status=sent.status if sent else 200,
    )


@router.post("/{key_id}/rotate")
async def rotate_key(visit: VisitDep, key_id: str) -> Response:
    """A new secret; the one before goes on for as long as the form says."""
    try:
        overlap_s = finite(str(finite(visit.form.text("hours") or "0") * 3600.0))
    except ValueError:
        raise InvalidRequest("hours: must be a number, as in 24 or 0.5") from None
    made = await visit.rest.send("POST", path_of("keys", key_id, "rotate"), {"overlap_s": overlap_s})
    return visit.page("key_secret.html", key=made, is_new=False)


@router.post("/{key_id}/revoke")
async def revoke_key(visit: VisitDep, key_id: str) -> Response:
    await visit.rest.send("DELETE", path_of("keys", key_id))
    return visit.go(_page(key_id), notice="revoked")


def _page(key_id: str) -> str:
    return f"/admin/keys/{quote(key_id, safe='')}"
