"""What strategies are worth: reports against every baseline, started, read and compared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from fastapi import Response

from api.ui.evaluations import Asked, Evaluations, compared
from api.ui.forms import Problems, whole
from api.ui.visit import Visit, VisitDep, page_router
from domain.errors import InvalidRequest
from domain.keys import Role
from evaluation.labelled import parse_labelled

router = page_router(prefix="/evaluation")

KINDS = {"strategy": "--series-1", "router": "--series-1", "baseline": "--series-2", "single": "--series-6"}


def evaluations_of(visit: Visit) -> Evaluations:
    """This process's, in ``app.state`` since the start."""
    found: Evaluations = visit.request.app.state.evaluations
    return found


@router.get("")
async def list_reports(visit: VisitDep) -> Response:
    evaluations = evaluations_of(visit)
    return visit.page("evaluation.html", reports=await evaluations.newest(), run=evaluations.run)


@router.get("/live")
async def run_now(visit: VisitDep) -> Response:
    """How the run goes; once it is over the page is read anew."""
    run = evaluations_of(visit).run
    response = visit.page("fragments/evaluation.html", run=run)
    if run is None or not run.is_running:
        response.headers["hx-redirect"] = f"/admin/evaluation/{run.report}" if run is not None and run.report else "/admin/evaluation"
    return response


@router.get("/new")
async def new_evaluation(visit: VisitDep) -> Response:
    visit.require(Role.EDITOR)
    return _form(visit, {"name": "", "questions": "", "calls": "3", "limit": "", "concurrency": "8", "strategies": []}, Problems())


@router.post("")
async def start(visit: VisitDep) -> Response:
    visit.require(Role.EDITOR)
    form, problems = visit.form, Problems()
    numbers: dict[str, int | None] = {}
    for name, least, most in (("calls", 2, 16), ("limit", 1, 100_000), ("concurrency", 1, 256)):
        text = form.text(name)
        value = numbers[name] = whole(text)
        if text and (value is None or not least <= value <= most):
            problems.add(name, f"must be a whole number from {least} to {most}")
    questions, found = form.text("questions"), []
    try:
        found = await asyncio.to_thread(parse_labelled, questions, source="questions")
        if not found:
            problems.add("questions", "there is no question")
    except InvalidRequest as error:
        problems.add("questions", error.message)
    if not form.text("name"):
        problems.add("name", "is missing")
    if problems:
        values = {name: form.text(name) for name in ("name", "questions", "calls", "limit", "concurrency")}
        return _form(visit, {**values, "strategies": form.all("strategies")}, problems, status=400)
    asked = Asked(
        form.text("name"),
        [question for question, _ in found],
        form.all("strategies") or None,
        numbers["calls"] or 3,
        numbers["limit"],
        numbers["concurrency"] or 8,
    )
    evaluations_of(visit).start(visit.rest, asked)
    return visit.go("/admin/evaluation")


def _form(visit: Visit, values: Mapping[str, Any], problems: Problems, *, status: int = 200) -> Response:
    strategies = sorted(s.id for s in visit.services.directory.snapshot().strategies.values() if s.enabled)
    return visit.page("evaluation_form.html", status=status, values=values, problems=problems, strategies=strategies)


@router.post("/stop")
async def stop(visit: VisitDep) -> Response:
    visit.require(Role.EDITOR)
    await evaluations_of(visit).stop()
    return visit.go("/admin/evaluation")


@router.get("/compare")
async def compare(visit: VisitDep) -> Response:
    """Two reports side by side."""
    evaluations = evaluations_of(visit)
    one, other = visit.asked("one"), visit.asked("other")
    if one is None or other is None:
        raise InvalidRequest("choose two reports to compare")
    first, second = await evaluations.get(one), await evaluations.get(other)
    return visit.page("evaluation_compare.html", one={**first, "id": one}, other={**second, "id": other}, rows=compared(first, second))


@router.get("/{report_id}.json")
async def download(visit: VisitDep, report_id: str) -> Response:
    report = await evaluations_of(visit).get(report_id)
    headers = {"content-disposition": f'attachment; filename="{report_id}.json"'}
    return Response(json.dumps(report), media_type="application/json", headers=headers)


@router.get("/{report_id}")
async def show_report(visit: VisitDep, report_id: str) -> Response:
    report = await evaluations_of(visit).get(report_id)
    named = {row["name"]: row for row in report["rows"]}
    ways = [row for row in report["rows"] if row.get("kind") in {"strategy", "router"}]
    return visit.page(
        "evaluation_report.html",
        report=report,
        report_id=report_id,
        best=max(ways, key=lambda row: row.get("accuracy") or 0.0, default=None),
        single=named.get("best single"),
        oracle=named.get("oracle"),
        chart=cost_quality(report),
    )


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
