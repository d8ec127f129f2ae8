"""What strategies are worth: reports against every baseline, started, read and compared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi import Response

from api.rest import Json, Refused, path_of
from api.ui.forms import Problems, problems_of, whole
from api.ui.visit import Visit, VisitDep, page_router
from domain.errors import InvalidRequest
from domain.keys import Role
from evaluation.labelled import parse_labelled, row_of

router = page_router(prefix="/evaluation")

KINDS = {"strategy": "--series-1", "router": "--series-1", "baseline": "--series-2", "single": "--series-6"}
_NUMBERS = {"calls": "3", "limit": "", "max_in_flight": "8"}
"""Fields that hold a number, with what stands in them at first."""


@router.get("")
async def list_reports(visit: VisitDep) -> Response:
    rows = (await visit.rest.get(path_of("evaluations"), limit=1000))["data"][::-1]
    reports = [row for row in rows if row["status"] == "finished"]
    run = next((row for row in rows if row["status"] == "running"), None)
    if run is None and rows and rows[0] not in reports:  # what came to nothing is told until something else was made
        run = rows[0]
    return visit.page("evaluation.html", reports=reports, run=run, notice=visit.asked("notice"))


@router.get("/new")
async def new_evaluation(visit: VisitDep) -> Response:
    visit.require(Role.EDITOR)
    return _form(visit, {"name": "", "questions": "", **_NUMBERS, "strategies": []}, Problems())


@router.post("")
async def start(visit: VisitDep) -> Response:
    visit.require(Role.EDITOR)
    form, problems = visit.form, Problems()
    body: Json = {"name": form.text("name")}
    for name in _NUMBERS:
        if text := form.text(name):
            body[name] = whole(text)
            if body[name] is None:
                problems.add(name, "must be a whole number")
    try:
        body["questions"] = await asyncio.to_thread(_rows, form.text("questions"))
    except InvalidRequest as error:
        problems.add("questions", error.message)
    if not body["name"]:
        problems.add("name", "is missing")
    if chosen := form.all("strategies"):
        body["strategies"] = chosen
    if not problems:
        try:
            await visit.rest.send("POST", path_of("evaluations"), body)
            return visit.go("/admin/evaluation")
        except Refused as refused:
            problems = problems_of(refused.message, refused.param, ("name", "questions", "strategies", *_NUMBERS))
    values = {name: form.text(name) for name in ("name", "questions", *_NUMBERS)}
    return _form(visit, {**values, "strategies": chosen}, problems, status=400)


def _rows(text: str) -> list[Json]:
    """The labelled questions of *text*, JSONL. Raises ``InvalidRequest`` with the line."""
    return [row_of(question) for question, _ in parse_labelled(text, source="questions")]


def _form(visit: Visit, values: Mapping[str, Any], problems: Problems, *, status: int = 200) -> Response:
    strategies = sorted(s.id for s in visit.services.directory.snapshot().strategies.values() if s.enabled)
    return visit.page("evaluation_form.html", status=status, values=values, problems=problems, strategies=strategies)


@router.get("/compare")
async def compare(visit: VisitDep) -> Response:
    """Two reports side by side."""
    chosen = [visit.asked(name) for name in ("one", "other")]
    if None in chosen:
        raise InvalidRequest("choose two reports to compare")
    one, other = [await visit.rest.get(path_of("evaluations", str(name))) for name in chosen]
    for told in (one, other):
        if told["report"] is None:
            raise InvalidRequest(f"{told['name']} has no report: choose two that are finished")
    return visit.page("evaluation_compare.html", one=one, other=other, rows=compared(one["report"], other["report"]))


@router.get("/{evaluation_id}.json")
async def download(visit: VisitDep, evaluation_id: str) -> Response:
    told = await visit.rest.get(path_of("evaluations", evaluation_id))
    headers = {"content-disposition": f'attachment; filename="{evaluation_id}.json"'}
    return Response(json.dumps(told["report"]), media_type="application/json", headers=headers)


@router.get("/{evaluation_id}/live")
async def run_now(visit: VisitDep, evaluation_id: str) -> Response:
    """How the run goes; once it is over another page is read."""
    run = await visit.rest.get(path_of("evaluations", evaluation_id))
    response = visit.page("fragments/evaluation.html", run=run)
    if run["status"] != "running":
        response.headers["hx-redirect"] = _page(evaluation_id) if run["report"] is not None else "/admin/evaluation"
    return response


@router.post("/{evaluation_id}/stop")
async def stop(visit: VisitDep, evaluation_id: str) -> Response:
    await visit.rest.send("POST", path_of("evaluations", evaluation_id, "cancel"))
    return visit.go("/admin/evaluation")


@router.post("/{evaluation_id}/delete")
async def delete(visit: VisitDep, evaluation_id: str) -> Response:
    await visit.rest.send("DELETE", path_of("evaluations", evaluation_id))
    return visit.go("/admin/evaluation", notice="deleted")


@router.get("/{evaluation_id}")
async def show_report(visit: VisitDep, evaluation_id: str) -> Response:
    told = await visit.rest.get(path_of("evaluations", evaluation_id))
    report = told["report"]
    if report is None:
        return visit.go("/admin/evaluation")
    named = {row["name"]: row for row in report["rows"]}
    ways = [row for row in report["rows"] if row.get("kind") in {"strategy", "router"}]
    return visit.page(
        "evaluation_report.html",
        told=told,
        report=report,
        best=max(ways, key=lambda row: row.get("accuracy") or 0.0, default=None),
        single=named.get("best single"),
        oracle=named.get("oracle"),
        chart=cost_quality(report),
    )


def _page(evaluation_id: str) -> str:
    return f"/admin/evaluation/{quote(evaluation_id, safe='')}"


def compared(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Json]:
    """The ways that stand in either report, with both rows and the difference of their accuracies. Pure."""
    rows = [{row["name"]: row for row in report["rows"]} for report in (one, other)]
    names = list(dict.fromkeys([*rows[0], *rows[1]]))
    found = []
    for name in names:
        first, second = rows[0].get(name), rows[1].get(name)
        known = [row["accuracy"] for row in (first, second) if row is not None and row.get("accuracy") is not None]
        found.append({"name": name, "one": first, "other": second, "difference": known[1] - known[0] if len(known) == 2 else None})
    return found


def cost_quality(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Accuracy over cost, a point for each way and a line where one has a curve, for the browser to draw; None without costs. Pure."""
    series: list[dict[str, Any]] = []
    for kind, colour in KINDS.items():
        rows = [
            row for row in report["rows"] if row.get("kind") == kind and row.get("cost") is not None and row.get("accuracy") is not None
        ]
        if rows:
            points = [{"x": row["cost"], "y": round(100 * row["accuracy"], 2)} for row in rows]
            series.append({"label": kind, "colour": colour, "data": points, "names": [row["name"] for row in rows]})
    for row in report["rows"]:
        curve = [point for point in row.get("curve") or () if point.get("cost") is not None and point.get("accuracy") is not None]
        if len(curve) > 1:
            points = [{"x": point["cost"], "y": round(100 * point["accuracy"], 2)} for point in curve]
            series.append({"label": f"{row['name']}, curve", "data": points, "line": True, "names": [row["name"]] * len(points)})
    return (
        {"type": "scatter", "x": f"cost ({report.get('unit', '')})", "y": "accuracy, %", "names": True, "series": series}
        if series
        else None
    )
