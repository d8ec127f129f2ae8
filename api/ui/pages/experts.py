"""The experts: a list to find one in, and what is done with many at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from fastapi import Response

from api.rest import Refused, path_of
from api.ui.forms import Problems
from api.ui.visit import Visit, VisitDep, page_router
from domain.experts import Backend, ExpertCard, HealthState
from domain.keys import Role
from domain.registry import RegistrySnapshot
from domain.skills import SkillCount, SkillProfile

router = page_router(prefix="/experts")

PAGE = 50
STATES = ("healthy", "in trouble", "disabled", "not measured")
MAX_SKILLS_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One expert of the list."""

    card: ExpertCard
    health: str
    overall: SkillCount
    skills: Sequence[str]
    """What it is best at: measured, else declared."""
    num_more: int


@router.get("")
async def list_experts(visit: VisitDep) -> Response:
    services = visit.services
    snapshot = services.directory.snapshot()
    if not snapshot.experts:
        return visit.page("welcome.html")
    filters = Filters(*(visit.asked(name) or "" for name in ("q", "state", "backend", "skill")))
    after = visit.asked("after")
    found = [
        card
        for card in sorted(snapshot.experts.values(), key=lambda card: card.id)
        if filters.meets(card, snapshot.profiles.get(card.id), services.directory.health_of(card.id))
    ]
    rest = [card for card in found if after is None or card.id > after]
    shown = rest[:PAGE]
    return visit.page(
        "experts.html",
        rows=[row_of(card, snapshot, services.directory.health_of(card.id).value) for card in shown],
        num_found=len(found),
        num_experts=len(snapshot.experts),
        next_after=shown[-1].id if len(rest) > len(shown) else None,
        filters=asdict(filters),
        states=STATES,
        backends=[backend.value for backend in Backend],
        deleted=visit.asked("deleted"),
        notice=visit.asked("notice"),
    )


@dataclass(frozen=True, slots=True)
class Filters:
    """What the list is narrowed to; empty says nothing."""

    q: str = ""
    """Words that all stand somewhere on the card."""
    state: str = ""
    backend: str = ""
    skill: str = ""

    def meets(self, card: ExpertCard, profile: SkillProfile | None, health: HealthState) -> bool:
        if self.backend and card.backend.value != self.backend:
            return False
        if self.skill and self.skill not in card.skills and (profile is None or self.skill not in profile.by_skill):
            return False
        is_healthy = health is HealthState.CLOSED
        is_measured = profile is not None and profile.overall.num_answered > 0
        states = {
            "healthy": card.enabled and is_healthy,
            "in trouble": card.enabled and not is_healthy,
            "disabled": not card.enabled,
            "not measured": not is_measured,
        }
        if not states.get(self.state, True):
            return False
        text = " ".join((card.id, card.model, card.description, card.base_url or "", *card.skills, *card.labels)).casefold()
        return all(word in text for word in self.q.casefold().split())


def row_of(card: ExpertCard, snapshot: RegistrySnapshot, health: str) -> Row:
    """*card* with what is measured of it."""
    profile = snapshot.profiles.get(card.id)
    best = [] if profile is None else best_skills(profile.by_skill)
    skills = best or list(card.skills)
    return Row(
        card,
        health,
        SkillCount() if profile is None else profile.overall,
        skills[:MAX_SKILLS_SHOWN],
        max(0, len(skills) - MAX_SKILLS_SHOWN),
    )


def best_skills(by_skill: Mapping[str, SkillCount]) -> list[str]:
    """By accuracy, shrunk towards one half: one right answer of one is not the best."""
    return sorted(by_skill, key=lambda name: (-by_skill[name].accuracy(prior_correct=1, prior_wrong=1), name))


# --- a manifest in and out -------------------------------------------------------------------------------------------


@router.get("/export")
async def export(visit: VisitDep) -> Response:
    """Experts, strategies and skills as a file."""
    answer = await visit.rest.ask("GET", path_of("manifest"))
    return Response(answer.content, media_type="application/yaml", headers={"content-disposition": 'attachment; filename="experts.yaml"'})


@router.get("/import")
async def import_form(visit: VisitDep) -> Response:
    visit.require(Role.EDITOR)
    return visit.page("experts_import.html", text="", prune=False, problems=Problems(), changes=None)


@router.post("/import")
async def import_manifest(visit: VisitDep) -> Response:
    """First what it would change; then, when that is confirmed, the change."""
    text, prune, is_sure = visit.form.text("yaml"), "prune" in visit.form, "apply" in visit.form
    try:
        changes = await visit.rest.send("POST", path_of("manifest"), {"yaml": text}, prune=prune, dry_run=not is_sure)
    except Refused as refused:
        problems = Problems(by_field={"yaml": refused.message})
        return visit.page("experts_import.html", status=400, text=text, prune=prune, problems=problems, changes=None)
    if is_sure:
        return visit.go("/admin/experts", notice="imported")
    return visit.page("experts_import.html", text=text, prune=prune, problems=Problems(), changes=_told(changes))


def _told(changes: Mapping[str, object]) -> dict[str, list[str]]:
    """The names that a manifest adds, changes and removes, by what happens to them."""
    told = {}
    for name, value in changes.items():
        if isinstance(value, list) and value:
            told[name.replace("_", " ")] = [str(item) for item in value]
        elif isinstance(value, Mapping):
            for inner, names in value.items():
                if isinstance(names, list) and names:
                    told[f"{name} {inner}".replace("_", " ")] = [str(item) for item in names]
    return told


# --- what a server serves --------------------------------------------------------------------------------------------


@router.get("/discover")
async def discover_form(visit: VisitDep) -> Response:
    visit.require(Role.EDITOR)
    return visit.page("experts_discover.html", base_url="", api_key="", found=None, problems=Problems(), added=(), failed={})


@router.post("/discover")
async def discover(visit: VisitDep) -> Response:
    """The models of a server; with some of them chosen, those become experts."""
    base_url, api_key = visit.form.text("base_url"), visit.form.text("api_key")
    body = {"base_url": base_url, **({"api_key": api_key} if api_key else {})}
    try:
        rows = (await visit.rest.send("POST", path_of("experts", "discover"), body))["data"]
    except Refused as refused:
        field = refused.param if refused.param in body else "base_url"
        problems = Problems(by_field={field: refused.message.removeprefix(f"{field}: ")})
        return visit.page(
            "experts_discover.html", status=400, base_url=base_url, api_key=api_key, found=None, problems=problems, added=(), failed={}
        )
    added, failed = await _added(visit, [row["card"] for row in rows if row["state"] == "new"], visit.form.all("chosen"))
    for row in rows:
        row["state"] = "added" if row["card"]["id"] in added else row["state"]
    return visit.page(
        "experts_discover.html", base_url=base_url, api_key=api_key, found=rows, problems=Problems(), added=added, failed=failed
    )


async def _added(visit: Visit, cards: Iterable[Mapping[str, object]], chosen: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The ids of the *chosen* cards that became experts, and why others did not."""
    added, failed = [], {}
    for card in cards:
        if card["id"] not in chosen:
            continue
        try:
            await visit.rest.send("POST", path_of("experts"), card)
            added.append(str(card["id"]))
        except Refused as refused:
            failed[str(card["id"])] = refused.message
    return added, failed
