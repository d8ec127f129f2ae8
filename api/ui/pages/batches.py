"""Batches: many requests in a file, planned, watched, stopped, and their answers taken away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson
from fastapi import Response

from api.file_content import FileContent
from api.rest import Json, Refused
from api.schemas.batches import known_strategy
from api.ui.forms import Form, Problems, problems_of, whole
from api.ui.visit import Visit, VisitDep, page_router
from api.uploads import receive_file
from domain.batch import BATCH_ENDPOINTS, BatchOptions, StoredFile
from domain.errors import DeadlineExceeded, InvalidRequest, NotFound

if TYPE_CHECKING:
    from orchestrator.batch.preview import Preview

router = page_router(prefix="/batches")

PAGE = 50
PLAN_TIMEOUT_S = 120.0
"""Longest that a plan is waited for: every line is routed."""
MAX_LINES_WITH_PROGRESS = 50_000
"""Lines of a batch up to which its progress is told bucket by bucket: all of them are read for it."""
MAX_PROBLEMS = 50


@router.get("")
async def list_batches(visit: VisitDep) -> Response:
    try:
        found = await visit.services.batch_store.list(limit=PAGE + 1, after=visit.asked("after"), of=visit.caller.owner)
    except NotFound:
        return visit.go("/admin/batches")
    shown = found[:PAGE]
    return visit.page(
        "batches.html",
        batches=shown,
        next_after=shown[-1].id if len(found) > PAGE else None,
        runs=visit.services.settings.run_batches,
        max_bytes=visit.services.settings.max_file_bytes,
    )


@router.post("/upload")
async def upload(visit: VisitDep) -> Response:
    """The file, sent by the page's script; answers with where to go on."""
    services = visit.services
    file = await receive_file(visit.request, services.file_store, services.upload_room, services.settings, key_id=visit.caller.key_id)
    return Response(orjson.dumps({"go": f"/admin/batches/new?file={quote(file.id)}"}), media_type="application/json")


@router.get("/new")
async def new_batch(visit: VisitDep) -> Response:
    return _form(visit, await _file(visit, visit.asked("file") or ""), Problems())


@router.post("/plan")
async def plan(visit: VisitDep) -> Response:
    """What the batch would do, as far as can be told beforehand."""
    from orchestrator.batch.preview import preview

    file = await _file(visit, visit.form.text("file"))
    try:
        options = _options(visit)
        async with asyncio.timeout(PLAN_TIMEOUT_S):
            content = await visit.services.file_store.open(file.id, visit.caller.owner)
            with content:
                found = await preview(visit.services.batches.parts(traced=False), content, visit.form.text("endpoint"), options)
    except InvalidRequest as error:
        return _form(visit, file, problems_of(error.message, error.param, _NAMES, aliases=_ALIASES), status=400)
    except TimeoutError:
        raise DeadlineExceeded(f"the plan took longer than {PLAN_TIMEOUT_S:.0f} s: start the batch without one") from None
    return _form(visit, file, Problems(), plan=plan_view(found))


@router.post("")
async def start_batch(visit: VisitDep) -> Response:
    file = await _file(visit, visit.form.text("file"))
    try:
        body = _body(visit.form)
        made = await visit.rest.send("POST", "/v1/batches", body)
    except InvalidRequest as error:
        return _form(visit, file, problems_of(error.message, error.param, _NAMES, aliases=_ALIASES), status=400)
    except Refused as refused:
        return _form(visit, file, problems_of(refused.message, refused.param, _NAMES, aliases=_ALIASES), status=refused.status)
    return visit.go(f"/admin/batches/{made['id']}")


_NAMES = ("file", "endpoint", "completion_window", "strategy", "max_calls", "max_tokens")
_ALIASES = {f"consilium.{name}": name for name in ("strategy", "max_calls", "max_tokens")} | {"input_file_id": "file"}


def _whole(form: Form, name: str) -> int | None:
    text = form.text(name)
    if not text:
        return None
    number = whole(text)
    if number is None or number < 1:
        raise InvalidRequest(f"{name}: must be a whole number above 0", param=name)
    return number


def _body(form: Form) -> Json:
    options = {"strategy": form.text("strategy") or None, "max_calls": _whole(form, "max_calls"), "max_tokens": _whole(form, "max_tokens")}
    given = {name: value for name, value in options.items() if value is not None}
    return {
        "input_file_id": form.text("file"),
        "endpoint": form.text("endpoint"),
        "completion_window": form.text("completion_window", "24h"),
        **({"consilium": given} if given else {}),
    }


def _options(visit: Visit) -> BatchOptions:
    form, snapshot = visit.form, visit.services.directory.snapshot()
    strategies = {s.id: s.enabled for s in snapshot.strategies.values() if visit.caller.access.may_use_strategy(s.id)}
    name = form.text("strategy")
    return BatchOptions(known_strategy(name, strategies) if name else None, _whole(form, "max_calls"), _whole(form, "max_tokens"))


async def _file(visit: Visit, file_id: str) -> StoredFile:
    return await visit.services.file_store.get(file_id, visit.caller.owner)


@dataclass(frozen=True, slots=True)
class TurnRow:
    """Some buckets that run while one server is loaded. ``x`` and ``width`` are shares of the whole time."""

    server: str
    device: str
    role: str
    loads: bool
    buckets: list[tuple[str, int]]
    begins_s: float
    ends_s: float
    x: float
    width: float


def plan_view(found: Preview) -> Json:
    """A preview, for the page."""
    if found.plan is None:
        return {"errors": [{"line": error.line, "message": error.message} for error in found.errors[:MAX_PROBLEMS]], "turns": []}
    plan_, total = found.plan, max(found.plan.prediction.total_s, 0.001)
    turns = []
    for turn in plan_.turns:
        span = plan_.prediction.turns[turn.number]
        turns.append(
            TurnRow(
                turn.server or "no server of ours",
                turn.device or "",
                turn.role.value,
                turn.load is not None,
                [(bucket.expert_id, bucket.num_calls) for bucket in turn.buckets],
                span.start_s,
                span.end_s,
                min(1.0, span.start_s / total),
                max(0.004, (span.end_s - span.start_s) / total),
            )
        )
    return {
        "errors": [],
        "turns": turns,
        "num_lines": plan_.table.num_lines,
        "num_calls": plan_.num_calls,
        "num_loads": plan_.num_loads,
        "why_loads": plan_.why_loads,
        "total_s": plan_.prediction.total_s,
        "impossible": dict(plan_.impossible),
        "refused": list(found.refused[:MAX_PROBLEMS]),
    }


def _form(visit: Visit, file: StoredFile, problems: Problems, *, plan: Mapping[str, Any] | None = None, status: int = 200) -> Response:
    snapshot = visit.services.directory.snapshot()
    return visit.page(
        "batch_form.html",
        status=status,
        file=file,
        problems=problems,
        plan=plan,
        endpoints=BATCH_ENDPOINTS,
        strategies=sorted(s.id for s in snapshot.strategies.values() if s.enabled),
        values={name: visit.form.text(name) for name in _NAMES} | {"completion_window": visit.form.text("completion_window", "24h")},
    )


@router.get("/{batch_id}")
async def show_batch(visit: VisitDep, batch_id: str) -> Response:
    return visit.page("batch.html", **await _state(visit, batch_id), failed=visit.asked("failed"))


@router.get("/{batch_id}/live")
async def batch_now(visit: VisitDep, batch_id: str) -> Response:
    """How it goes, for a page that stays open."""
    return visit.page("fragments/batch.html", **await _state(visit, batch_id))


async def _state(visit: Visit, batch_id: str) -> Json:
    batch = await visit.services.batch_store.get(batch_id, visit.caller.owner)
    is_small = batch.counts.total <= MAX_LINES_WITH_PROGRESS
    return {
        "batch": batch,
        "buckets": await visit.services.batch_store.progress(batch_id) if is_small else {},
        "is_small": is_small,
        "moments": sorted((at, state.value) for state, at in batch.entered.items()),
    }


@router.post("/{batch_id}/cancel")
async def cancel_batch(visit: VisitDep, batch_id: str) -> Response:
    try:
        await visit.rest.send("POST", f"/v1/batches/{quote(batch_id, safe='')}/cancel")
    except Refused as refused:
        if refused.status != 409:
            raise
        return visit.go(f"/admin/batches/{quote(batch_id, safe='')}", failed=refused.message)
    return visit.go(f"/admin/batches/{quote(batch_id, safe='')}")


@router.get("/{batch_id}/{which}.jsonl")
async def download(visit: VisitDep, batch_id: str, which: str) -> Response:
    """The ``output`` or the ``errors`` of a batch that is over."""
    services = visit.services
    batch = await services.batch_store.get(batch_id, visit.caller.owner)
    file_id = {"output": batch.output_file_id, "errors": batch.error_file_id, "input": batch.input_file_id}.get(which)
    if file_id is None:
        raise NotFound(f"the batch has no file {which[:20]!r}")
    file = await services.file_store.get(file_id, visit.caller.owner)
    return FileContent(file, await services.file_store.open(file_id), send_timeout_s=services.settings.send_timeout_s)
