"""How the service and its experts are doing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import Response

from api.ui.visit import Visit, VisitDep, page_router
from domain.chat import Usage
from domain.experts import Price
from domain.spending import cost

if TYPE_CHECKING:
    from experts_registry.traffic import TrafficView

router = page_router()

WINDOWS = {"1h": (3600.0, "last hour"), "24h": (86_400.0, "last 24 hours"), "7d": (7 * 86_400.0, "last 7 days")}
"""What may be looked at: seconds, and their name."""
NUM_INTERVALS = 60
MAX_EXPERTS = 12
"""Experts in the table of use; the page of experts has all."""
MAX_TROUBLED = 20
MAX_BATCHES = 20
_FREE = Price()


@dataclass(frozen=True, slots=True)
class ExpertRow:
    """What an expert was used for, at the prices of its card now."""

    expert_id: str
    share: float
    num_requests: int
    num_failed: int
    num_tokens: int
    nano_usd: int
    is_there: bool


@router.get("")
@router.get("/", include_in_schema=False)
async def overview(visit: VisitDep) -> Response:
    if not visit.services.directory.snapshot().experts:
        return visit.page("welcome.html")
    return visit.page("overview.html", **await _figures(visit))


@router.get("/overview/live")
async def overview_now(visit: VisitDep) -> Response:
    """The figures alone, for a page that stays open."""
    return visit.page("fragments/overview.html", **await _figures(visit))


async def _figures(visit: Visit) -> dict[str, Any]:
    services = visit.services
    window = visit.asked("window") or "1h"
    window = window if window in WINDOWS else "1h"
    length_s, words = WINDOWS[window]
    now = time.time()
    traffic = await services.traffic.view(since=now - length_s, until=now, num_intervals=NUM_INTERVALS)
    batches = await services.batch_store.list(limit=MAX_BATCHES, of=visit.caller.owner)
    rows = expert_rows(traffic, {card.id: card.price for card in services.directory.snapshot().experts.values()})
    cards = services.directory.snapshot().experts.values()
    states = {card.id: services.directory.health_of(card.id).value for card in cards if card.enabled}
    return {
        "window": window,
        "windows": WINDOWS,
        "words": words,
        "traffic": traffic,
        "rows": rows[:MAX_EXPERTS],
        "num_more": max(0, len(rows) - MAX_EXPERTS),
        "num_tokens": sum(row.num_tokens for row in rows),
        "nano_usd": sum(row.nano_usd for row in rows),
        "chart": chart(traffic, length_s),
        "num_experts": len(cards),
        "num_healthy": sum(state == "closed" for state in states.values()),
        "num_disabled": len(cards) - len(states),
        "troubled": sorted((expert_id, state) for expert_id, state in states.items() if state != "closed")[:MAX_TROUBLED],
        "parts": services.readiness.parts,
        "num_dropped": services.trace_store.num_dropped,
        "storage_error": services.directory.storage_error,
        "keeps_traces": services.settings.traces,
        "batches": [batch for batch in batches if not batch.state.is_final],
        "updated_at": now,
    }


def expert_rows(traffic: TrafficView, prices: dict[str, Price]) -> list[ExpertRow]:
    """What each expert did, with what that costs at *prices*."""
    total = sum(expert.num_requests for expert in traffic.experts) or 1
    return [
        ExpertRow(
            expert.expert_id,
            expert.num_requests / total,
            expert.num_requests,
            expert.num_failed,
            expert.prompt_tokens + expert.completion_tokens,
            cost(prices.get(expert.expert_id, _FREE), Usage(expert.prompt_tokens, expert.completion_tokens)),
            expert.expert_id in prices,
        )
        for expert in traffic.experts
    ]


def chart(traffic: TrafficView, length_s: float) -> dict[str, Any]:
    """Requests over time, for the browser to draw."""
    form = "%H:%M" if length_s <= 86_400 else "%d %b %H:%M"
    return {
        "type": "bar",
        "stacked": True,
        "whole": True,
        "y": "requests",
        "labels": [time.strftime(form, time.gmtime(interval.began_at)) for interval in traffic.intervals],
        "series": [
            {"label": "answered", "data": [interval.num_ok for interval in traffic.intervals], "colour": "--series-1"},
            {"label": "cancelled", "data": [interval.num_cancelled for interval in traffic.intervals], "colour": "--series-6"},
            {"label": "failed", "data": [interval.num_failed for interval in traffic.intervals], "colour": "--bad"},
        ],
    }
