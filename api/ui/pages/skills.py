"""What experts were measured to be able to: a map of experts and skills, the questions behind each field, and measuring itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Response

from api.rest import Refused, path_of
from api.schemas.admin import ProfileRunBody
from api.ui.model_forms import fields_of
from api.ui.resource_form import ResourceForm, Sent
from api.ui.visit import Visit, VisitDep, page_router
from domain.errors import InvalidRequest
from domain.keys import Role
from domain.registry import RegistrySnapshot
from domain.skills import SkillCount
from evaluation.intervals import wilson_interval

router = page_router(prefix="/skills")

ROWS, COLUMNS = 30, 10
"""Of one page of the map: what fits on a screen."""
NUM_EXAMPLES = 25
NUM_RUNS = 100
THIN = 10
"""Fewer answers than these say little: the field is marked."""
_STEPS = (0.2, 0.4, 0.6, 0.75, 0.9)
"""Where the colours of the map change."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One expert and one skill."""

    count: SkillCount
    low: float
    high: float

    @property
    def shade(self) -> str:
        return f"h{sum(self.count.accuracy() >= step for step in _STEPS)}"

    @property
    def is_thin(self) -> bool:
        return self.count.num_answered < THIN


@dataclass(frozen=True, slots=True)
class HeatMap:
    """One page of the map."""

    skills: Sequence[str]
    rows: Sequence[tuple[str, Cell | None, Sequence[Cell | None]]]
    """Expert, all of its skills together, and each of ``skills``."""
    num_skills: int
    num_experts: int
    first_skill: int
    first_row: int


class _Totals:
    """How much each skill was measured, added up once for each picture of the registry: a thousand experts have many counts."""

    def __init__(self) -> None:
        self._snapshot: RegistrySnapshot | None = None
        self._totals: Mapping[str, int] = {}

    def of(self, snapshot: RegistrySnapshot) -> Mapping[str, int]:
        if snapshot is not self._snapshot:
            totals: dict[str, int] = {}
            for profile in snapshot.profiles.values():
                for name, count in profile.by_skill.items():
                    totals[name] = totals.get(name, 0) + count.num_answered
            self._snapshot, self._totals = snapshot, totals
        return self._totals


_TOTALS = _Totals()


def heat_map(snapshot: RegistrySnapshot, *, words: str, skill_words: str, sort: str, first_row: int, first_skill: int) -> HeatMap:
    """The experts whose id holds *words* and the measured skills that hold *skill_words*. Sorted by id, by ``overall``, or by a skill."""
    measured = {expert_id: profile for expert_id, profile in snapshot.profiles.items() if profile.overall.num_answered}
    totals = _TOTALS.of(snapshot)
    skills = sorted((name for name in totals if skill_words.casefold() in name.casefold()), key=lambda name: (-totals[name], name))
    experts = sorted(expert_id for expert_id in measured if words.casefold() in expert_id.casefold())

    def by_accuracy(expert_id: str) -> float:
        profile = measured[expert_id]
        count = profile.overall if sort == "overall" else profile.by_skill.get(sort, SkillCount())
        return -count.accuracy(prior_correct=1, prior_wrong=1) if count.num_answered else 1.0

    if sort != "id":
        experts.sort(key=by_accuracy)
    shown = skills[first_skill : first_skill + COLUMNS]
    rows = [
        (expert_id, _cell(measured[expert_id].overall), [_cell(measured[expert_id].by_skill.get(name)) for name in shown])
        for expert_id in experts[first_row : first_row + ROWS]
    ]
    return HeatMap(shown, rows, len(skills), len(experts), first_skill, first_row)


def _cell(count: SkillCount | None) -> Cell | None:
    if count is None or not count.num_answered:
        return None
    return Cell(count, *wilson_interval(count.num_correct, count.num_answered))


@router.get("")
async def skills_map(visit: VisitDep) -> Response:
    snapshot = visit.services.directory.snapshot()
    filters = {"q": visit.asked("q") or "", "skill": visit.asked("skill") or "", "sort": visit.asked("sort") or "overall"}
    first_row, first_skill = _number(visit, "row"), _number(visit, "col")
    heat = heat_map(
        snapshot, words=filters["q"], skill_words=filters["skill"], sort=filters["sort"], first_row=first_row, first_skill=first_skill
    )
    return visit.page(
        "skills.html",
        heat=heat,
        filters=filters,
        num_measured=len(snapshot.profiles),
        num_known=len(snapshot.skills),
        rows_a_page=ROWS,
        columns_a_page=COLUMNS,
        thin=THIN,
    )


def _number(visit: Visit, name: str) -> int:
    text = visit.asked(name) or "0"
    if not text.isdecimal() or len(text) > 6:
        raise InvalidRequest(f"{name} is no number")
    return int(text)


@router.get("/questions")
async def questions(visit: VisitDep) -> Response:
    """How one expert answered the questions of one skill."""
    expert, skill, verdict, after = (visit.asked(name) for name in ("expert", "skill", "verdict", "after"))
    if expert is None:
        raise InvalidRequest("an expert is needed: choose a field of the map")
    found = await visit.services.profile_store.examples(
        expert_id=expert, skill=skill, correct=None if verdict is None else verdict == "right", limit=NUM_EXAMPLES + 1, after=after
    )
    shown = found[:NUM_EXAMPLES]
    profile = visit.services.directory.snapshot().profiles.get(expert)
    count = None if profile is None else profile.overall if skill is None else profile.by_skill.get(skill)
    return visit.page(
        "skill_questions.html",
        expert=expert,
        skill=skill or "",
        verdict=verdict or "",
        cell=_cell(count),
        examples=shown,
        next_after=shown[-1].place if len(found) > NUM_EXAMPLES else None,
    )


# --- measuring -------------------------------------------------------------------------------------------------------

FORM = ResourceForm(
    fields=fields_of(ProfileRunBody),
    groups={"What to measure": ("experts", "skills", "limit", "note"), "How": ("questions", "max_in_flight", "judge")},
    choices=lambda visit: {"judge": sorted(visit.services.directory.snapshot().experts)},
)


@router.get("/measure")
async def measure_form(visit: VisitDep) -> Response:
    visit.require(Role.EDITOR)
    experts, skills = visit.request.query_params.getlist("experts"), visit.request.query_params.getlist("skills")
    return _measure(visit, FORM.shown({"experts": experts, "skills": skills}))


@router.post("/measure")
async def measure(visit: VisitDep) -> Response:
    """Begin; the run's page shows how it goes."""
    sent = await FORM.send(visit, "POST", path_of("profile-runs"))
    if sent.made is not None:
        return visit.go(f"/admin/skills/runs/{sent.made['id']}")
    return _measure(visit, FORM.given(visit), sent)


def _measure(visit: Visit, values: dict[str, Any], sent: Sent | None = None) -> Response:
    return FORM.page(
        visit,
        values,
        title="Measure experts",
        lead="Each expert answers labelled questions, and is graded. What it comes to counts at once, and can be taken back. "
        "Without experts all enabled ones are asked, without skills all questions.",
        action="/admin/skills/measure",
        crumbs=[("Skills", "/admin/skills")],
        submit="Begin",
        problems=sent.problems if sent else None,
        status=sent.status if sent else 200,
    )


@router.get("/runs")
async def runs(visit: VisitDep) -> Response:
    answer = await visit.rest.get(path_of("profile-runs"), limit=1000)
    rows = sorted(answer["data"], key=lambda run: -run["created_at"])
    return visit.page("runs.html", runs=rows[:NUM_RUNS], num_runs=len(rows))


@router.get("/runs/{run_id}")
async def show_run(visit: VisitDep, run_id: str) -> Response:
    return visit.page("run.html", run=await _run(visit, run_id), failed=visit.asked("failed"))


@router.get("/runs/{run_id}/live")
async def run_now(visit: VisitDep, run_id: str) -> Response:
    """How it goes, for a page that stays open."""
    return visit.page("fragments/run.html", run=await _run(visit, run_id))


async def _run(visit: Visit, run_id: str) -> Mapping[str, Any]:
    run = await visit.rest.get(path_of("profile-runs", run_id))
    return {**run, "progress": run.get("progress"), "summary": run.get("summary")}


@router.post("/runs/{run_id}/{what}")
async def change_run(visit: VisitDep, run_id: str, what: str) -> Response:
    """``cancel``, ``resume`` or ``rollback``."""
    page = f"/admin/skills/runs/{run_id}"
    path = path_of("profile-runs", run_id)
    try:
        match what:
            case "cancel" | "resume":
                await visit.rest.send("POST", f"{path}/{what}")
            case "rollback":
                await visit.rest.send("DELETE", path)
            case _:
                raise InvalidRequest(f"a run cannot be made to {what[:40]}")
    except Refused as refused:
        if refused.status != 409:
            raise
        return visit.go(page, failed=refused.message)
    return visit.go(page)
