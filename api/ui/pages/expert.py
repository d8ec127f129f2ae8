"""One expert: its card, what it can, how it does, what happened to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import Response

from api.rest import Refused, path_of
from api.ui.restoring import changes, restore
from api.ui.visit import VisitDep, page_router
from domain.errors import NotFound
from domain.nearest import did_you_mean
from domain.skills import SkillCount, SkillProfile
from domain.trace import Trace
from evaluation.intervals import wilson_interval

router = page_router(prefix="/experts")

NUM_EXAMPLES = 8
NUM_TRACES = 10
MAX_SKILLS = 40
"""Measured skills on its page, the best; the map has all."""
NUM_CALLS = 30
"""Last requests that an expert's times are taken of."""
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class SkillRow:
    """One skill as measured, with the 95 % interval of its accuracy."""

    name: str
    count: SkillCount
    low: float
    high: float


@router.get("/{expert_id}")
async def show_expert(visit: VisitDep, expert_id: str) -> Response:
    services = visit.services
    snapshot = services.directory.snapshot()
    card = snapshot.experts.get(expert_id)
    if card is None:
        raise NotFound(f"there is no expert {expert_id!r}; {did_you_mean(expert_id, sorted(snapshot.experts))}")
    traces = await services.trace_store.list(expert_id=expert_id, limit=NUM_CALLS)
    profile = snapshot.profiles.get(expert_id)
    servers = [server for server in services.fleet.view().servers if expert_id in server.expert_ids]
    return visit.page(
        "expert.html",
        card=card,
        health=services.directory.health_of(expert_id).value,
        in_flight=services.workers.in_flight(expert_id),
        queued=services.workers.queued(expert_id),
        skills=skill_rows(profile)[:MAX_SKILLS],
        num_skills=0 if profile is None else len(profile.by_skill),
        overall=skill_row("overall", profile.overall) if profile is not None else None,
        aggregating=snapshot.aggregator_profiles.get(expert_id),
        feedback=services.feedback.view.experts.get(expert_id),
        won=await services.profile_store.examples(expert_id=expert_id, correct=True, limit=NUM_EXAMPLES),
        lost=await services.profile_store.examples(expert_id=expert_id, correct=False, limit=NUM_EXAMPLES),
        latencies=latencies_of(expert_id, traces),
        day=await services.traffic.of_expert(expert_id, since=time.time() - DAY_S),
        servers=servers,
        traces=traces[:NUM_TRACES],
        changes=await changes(visit, "experts", expert_id),
        strategies=[
            strategy.id for strategy in snapshot.strategies.values() if expert_id in (strategy.aggregator_expert, strategy.fallback_expert)
        ],
        notice=visit.asked("notice"),
        failed=visit.asked("failed"),
    )


def skill_rows(profile: SkillProfile | None) -> list[SkillRow]:
    """What is measured, what it is best at first."""
    if profile is None:
        return []
    rows = [skill_row(name, count) for name, count in profile.by_skill.items()]
    return sorted(rows, key=lambda row: (-row.count.accuracy(prior_correct=1, prior_wrong=1), row.name))


def skill_row(name: str, count: SkillCount) -> SkillRow:
    return SkillRow(name, count, *wilson_interval(count.num_correct, count.num_answered))


def latencies_of(expert_id: str, traces: Sequence[Trace]) -> list[float]:
    """How long its calls took that were answered, ascending, in milliseconds."""
    return sorted(call.latency_ms for trace in traces for call in trace.calls if call.expert_id == expert_id and call.status == "ok")


@router.post("/{expert_id}/check")
async def check_expert(visit: VisitDep, expert_id: str) -> Response:
    """One real call, and what came of it."""
    result = await visit.rest.send("POST", path_of("experts", expert_id, "check"))
    return visit.page("fragments/expert_check.html", result=result)


@router.post("/{expert_id}/enabled")
async def set_enabled(visit: VisitDep, expert_id: str) -> Response:
    """Enable or disable it; the rest of the card stays as it is."""
    wanted = visit.form.text("enabled") == "yes"
    await visit.rest.send("PATCH", path_of("experts", expert_id), {"enabled": wanted})
    return visit.go(_page(expert_id), notice="enabled" if wanted else "disabled")


@router.post("/{expert_id}/delete")
async def delete_expert(visit: VisitDep, expert_id: str) -> Response:
    """Remove it. The list it leads to has the way back."""
    try:
        await visit.rest.send("DELETE", path_of("experts", expert_id))
    except Refused as refused:
        if refused.status != 409:
            raise
        return visit.go(_page(expert_id), failed=refused.message)
    return visit.go("/admin/experts", deleted=expert_id)


@router.post("/{expert_id}/restore")
async def restore_expert(visit: VisitDep, expert_id: str) -> Response:
    """Put back what an entry of its history replaced or removed; without an entry what was removed last."""
    await restore(visit, "experts", expert_id)
    return visit.go(_page(expert_id), notice="restored")


def _page(expert_id: str) -> str:
    return f"/admin/experts/{quote(expert_id, safe='')}"
