"""What happened to single requests: found, looked at, asked again another way, judged, forgotten."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from fastapi import Response

from api.rest import Refused, path_of
from api.ui.explanation import explained
from api.ui.forms import finite
from api.ui.visit import Visit, VisitDep, page_router
from domain.errors import InvalidRequest, NotFound
from domain.trace import Trace

router = page_router(prefix="/requests")

PAGE = 50
WINDOWS = {
    "15m": (900.0, "last 15 minutes"),
    "1h": (3600.0, "last hour"),
    "24h": (86_400.0, "last 24 hours"),
    "7d": (604_800.0, "last 7 days"),
}
_DAY_S = 86_400.0
HASHED = "hmac-sha256:"
"""How a text begins that only its hash is kept of (``experts_registry.trace_privacy``)."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What the list is narrowed to; empty says nothing."""

    q: str = ""
    """A request's id."""
    expert: str = ""
    strategy: str = ""
    model: str = ""
    status: str = ""
    error: str = ""
    judged: str = ""
    within: str = ""
    until: str = ""
    """A moment of UTC, as browsers write it."""

    def times(self, now: float) -> tuple[float | None, float | None]:
        """From when, until when. Raises ``InvalidRequest``."""
        until = None
        if self.until:
            try:
                until = datetime.fromisoformat(self.until).replace(tzinfo=UTC).timestamp()
            except ValueError:
                raise InvalidRequest(f"{self.until[:40]!r} is no moment: write it as in 2026-11-22T18:00", param="until") from None
        since = (now if until is None else until) - WINDOWS[self.within][0] if self.within in WINDOWS else None
        return since, until


@router.get("")
async def list_requests(visit: VisitDep) -> Response:
    services = visit.services
    filters = Filters(**{name: visit.asked(name) or "" for name in Filters.__dataclass_fields__})
    since, until = filters.times(time.time())
    after = visit.asked("after")
    try:
        found = await services.trace_store.list(
            request_id=filters.q or None,
            expert_id=filters.expert or None,
            strategy=filters.strategy or None,
            model=filters.model or None,
            status=filters.status or None,
            error_code=filters.error or None,
            judged=filters.judged or None,
            since=since,
            until=until,
            limit=PAGE + 1,
            after=after,
        )
    except NotFound:
        return visit.go("/admin/requests")  # the trace that the page before ended with is forgotten
    snapshot = services.directory.snapshot()
    shown = found[:PAGE]
    return visit.page(
        "requests.html",
        traces=shown,
        next_after=shown[-1].id if len(found) > PAGE else None,
        filters=asdict(filters),
        is_filtered=any(asdict(filters).values()),
        windows={name: told for name, (_, told) in WINDOWS.items()},
        strategies=sorted(snapshot.strategies),
        settings=services.settings,
        forgotten=visit.asked("forgotten"),
    )


@router.post("/forget")
async def forget(visit: VisitDep) -> Response:
    """Delete what is older than so many days; none are left of 0."""
    try:
        days = finite(visit.form.text("days"))
    except ValueError:
        raise InvalidRequest("the number of days is missing, or is none") from None
    if days < 0:
        raise InvalidRequest("the number of days must not be below 0")
    answer = await visit.rest.send("DELETE", path_of("traces"), before=time.time() - days * _DAY_S)
    return visit.go("/admin/requests", forgotten=str(answer["num_deleted"]))


@router.get("/{trace_id}")
async def show_request(visit: VisitDep, trace_id: str) -> Response:
    told = await visit.rest.get(path_of("traces", trace_id))
    events = await visit.services.feedback_store.list(request_id=told["request_id"])
    snapshot = visit.services.directory.snapshot()
    origin = visit.asked("of")
    return visit.page(
        "request.html",
        told=told,
        can_replay=can_replay(told["messages"]),
        explanation=explained(told, {card.id: card.price for card in snapshot.experts.values()}),
        events=[event for event in events if event.trace_id == trace_id and not event.resets],
        models=models_of(visit),
        origin=await _origin(visit, origin) if origin else None,
        failed=visit.asked("failed"),
        said=visit.asked("said"),
    )


def can_replay(messages: Sequence[Mapping[str, Any]] | None) -> bool:
    """Whether the texts are there, and not only hashes of them."""
    return bool(messages) and not any(str(message.get("content")).startswith(HASHED) for message in messages or ())


def models_of(visit: Visit) -> list[tuple[str, str]]:
    """What a request can be sent to: (name, kind)."""
    snapshot = visit.services.directory.snapshot()
    strategies = sorted(s.id for s in snapshot.strategies.values() if s.enabled)
    return [
        ("auto", "the default strategy"),
        *((f"consilium/{name}", "strategy") for name in strategies),
        *((name, "expert") for name, card in sorted(snapshot.experts.items()) if card.enabled),
    ]


async def _origin(visit: Visit, trace_id: str) -> Trace | None:
    """The request that this one repeats, to be compared with."""
    try:
        return await visit.services.trace_store.get(trace_id)
    except NotFound:
        return None


@router.post("/{trace_id}/replay")
async def replay(visit: VisitDep, trace_id: str) -> Response:
    """Ask the same again, of another strategy or expert, and look at what comes of it."""
    old = await visit.services.trace_store.get(trace_id)
    if old.messages is None or not can_replay(old.messages):
        raise InvalidRequest("what was asked is not stored (CONSILIUM_TRACE_CONTENT), so it cannot be asked again")
    body = {"model": visit.form.text("model", "auto"), "messages": [dict(message) for message in old.messages]}
    failed: dict[str, str] = {}
    try:
        answer = await visit.rest.ask("POST", "/v1/chat/completions", body=body)
        request_id = answer.headers["x-request-id"]
    except Refused as refused:
        request_id, failed = visit.request.state.request_id, {"failed": refused.message}
    try:
        made = await visit.services.trace_store.newest(request_id)
    except NotFound:
        return visit.go(_page(trace_id), **failed)
    return visit.go(_page(made.id), of=trace_id)


@router.post("/{trace_id}/feedback")
async def give_feedback(visit: VisitDep, trace_id: str) -> Response:
    """Say how good the answer was. Each opinion has an id of its own, so that one can be taken back and another given."""
    trace = await visit.services.trace_store.get(trace_id)
    body: dict[str, Any] = {"trace_id": trace.id, "id": f"page-{uuid.uuid4().hex}"}
    match visit.form.text("verdict"):
        case "right":
            body["correct"] = True
        case "wrong":
            body["correct"] = False
        case expert if expert.startswith("expert:"):
            body["correct_expert"] = expert.removeprefix("expert:")
        case _:
            raise InvalidRequest("say whether the answer was right")
    try:
        await visit.rest.send("POST", "/v1/feedback", body)
    except Refused as refused:
        return visit.go(_page(trace_id), failed=refused.message)
    return visit.go(_page(trace_id), said="given")


@router.post("/{trace_id}/feedback/rollback")
async def take_back(visit: VisitDep, trace_id: str) -> Response:
    await visit.rest.send("POST", path_of("feedback", visit.form.text("id"), "rollback"))
    return visit.go(_page(trace_id), said="back")


@router.post("/{trace_id}/delete")
async def delete_request(visit: VisitDep, trace_id: str) -> Response:
    """Forget it, with what was asked and answered."""
    await visit.rest.send("DELETE", path_of("traces", trace_id))
    return visit.go("/admin/requests", forgotten="1")


def _page(trace_id: str) -> str:
    return f"/admin/requests/{quote(trace_id, safe='')}"
