"""The strategies: recipes that requests name as ``consilium/<id>``."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import Response

from api.rest import path_of
from api.ui.model_forms import fields_of
from api.ui.recipe import adjustments_of, bounds_of, effort_lead, efforts_of
from api.ui.resource_form import ResourceForm, Sent
from api.ui.restoring import changes, restore
from api.ui.visit import Visit, VisitDep, page_router
from domain.errors import NotFound
from domain.keys import Role
from domain.nearest import did_you_mean
from experts_registry.models import StrategyModel

router = page_router(prefix="/strategies")

PAGE = 100
FORM = ResourceForm(
    fields=fields_of(StrategyModel, leave_out={"version"}),
    groups={
        "What it does": ("id", "description", "router", "router_options", "pick.", "enabled"),
        "How one answer is made": (
            "mode",
            "mode_options",
            "aggregator",
            "aggregator_expert",
            "fallback_expert",
            "prompts",
            "quorum",
            "candidate_timeout_s",
            "hedge_after_s",
            "alone_from_accuracy",
            "shed_from_load",
        ),
        "Who may be asked, and what moves scores": ("adjustments.",),
        "Limits": ("max_calls", "timeout_s", "budget."),
        "How much a request is worth": ("effort.",),
    },
    labels={
        "mode": "Mode: how experts work together",
        "quorum": "Quorum: so many candidates are enough",
        "enabled": "Enabled: it may be asked for",
        "pick.kind": "How many experts",
        "pick.k": "At most (k)",
        "pick.threshold": "Threshold of dynamic",
        "adjustments.allow": "Only these experts",
        "adjustments.deny": "Never these experts",
    },
    choices=lambda visit: {
        "router": sorted(visit.services.routers),
        "aggregator_expert": sorted(visit.services.directory.snapshot().experts),
        "fallback_expert": sorted(visit.services.directory.snapshot().experts),
    },
)
_LEAD = "What is left empty has its default. The options of each router are in docs/routers.md."
_LIST = ("Strategies", "/admin/strategies")


@router.get("")
async def list_strategies(visit: VisitDep) -> Response:
    snapshot = visit.services.directory.snapshot()
    after = visit.asked("after")
    rest = [s for _, s in sorted(snapshot.strategies.items()) if after is None or s.id > after]
    shown = rest[:PAGE]
    return visit.page(
        "strategies.html",
        strategies=shown,
        next_after=shown[-1].id if len(rest) > len(shown) else None,
        notice=visit.asked("notice"),
        deleted=visit.asked("deleted"),
    )


@router.get("/new")
async def new_strategy(visit: VisitDep) -> Response:
    visit.require(Role.EDITOR)
    cloned = visit.asked("clone")
    view: dict[str, Any] = {}
    if cloned is not None:
        view = {**await visit.rest.get(path_of("strategies", cloned)), "id": f"{cloned}-copy"[:64]}
    return _new(visit, FORM.shown(view))


@router.post("")
async def create_strategy(visit: VisitDep) -> Response:
    sent = await FORM.send(visit, "POST", path_of("strategies"))
    if sent.made is not None:
        return visit.go(_page(sent.made["id"]), notice="created")
    return _new(visit, FORM.given(visit), sent)


def _new(visit: Visit, values: dict[str, Any], sent: Sent | None = None) -> Response:
    return FORM.page(
        visit,
        values,
        title="Add a strategy",
        lead=_LEAD,
        action="/admin/strategies",
        crumbs=[_LIST],
        submit="Add",
        problems=sent.problems if sent else None,
        status=sent.status if sent else 200,
    )


@router.get("/{strategy_id}")
async def show_strategy(visit: VisitDep, strategy_id: str) -> Response:
    known = visit.services.directory.snapshot().strategies
    if strategy_id not in known:
        raise NotFound(f"there is no strategy {strategy_id!r}; {did_you_mean(strategy_id, sorted(known))}")
    strategy = known[strategy_id]
    return visit.page(
        "strategy.html",
        strategy=strategy,
        adjustments=adjustments_of(strategy),
        bounds=bounds_of(strategy),
        effort_lead=effort_lead(strategy.effort),
        efforts=efforts_of(strategy),
        traces=await visit.services.trace_store.list(strategy=strategy_id, limit=10),
        changes=await changes(visit, "strategies", strategy_id),
        notice=visit.asked("notice"),
    )


@router.get("/{strategy_id}/edit")
async def edit_strategy(visit: VisitDep, strategy_id: str) -> Response:
    visit.require(Role.EDITOR)
    answer = await visit.rest.ask("GET", path_of("strategies", strategy_id))
    return _edit(visit, strategy_id, FORM.shown(answer.json()), answer.headers["etag"])


@router.post("/{strategy_id}/edit")
async def change_strategy(visit: VisitDep, strategy_id: str) -> Response:
    version = visit.form.text("version")
    sent = await FORM.send(visit, "PUT", path_of("strategies", strategy_id), version=version or None)
    if sent.made is not None:
        return visit.go(_page(strategy_id), notice="changed")
    return _edit(visit, strategy_id, FORM.given(visit), version, sent)


def _edit(visit: Visit, strategy_id: str, values: dict[str, Any], version: str, sent: Sent | None = None) -> Response:
    return FORM.page(
        visit,
        values,
        title=f"Edit {strategy_id}",
        lead=_LEAD,
        action=f"{_page(strategy_id)}/edit",
        crumbs=[_LIST, (strategy_id, _page(strategy_id))],
        submit="Save",
        problems=sent.problems if sent else None,
        version=version,
        status=sent.status if sent else 200,
    )


@router.post("/{strategy_id}/delete")
async def delete_strategy(visit: VisitDep, strategy_id: str) -> Response:
    await visit.rest.send("DELETE", path_of("strategies", strategy_id))
    return visit.go("/admin/strategies", deleted=strategy_id)


@router.post("/{strategy_id}/restore")
async def restore_strategy(visit: VisitDep, strategy_id: str) -> Response:
    """Put back what an entry of its history replaced or removed; without an entry what was removed last."""
    await restore(visit, "strategies", strategy_id)
    return visit.go(_page(strategy_id), notice="restored")


def _page(strategy_id: str) -> str:
    return f"/admin/strategies/{quote(strategy_id, safe='')}"
