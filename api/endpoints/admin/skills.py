"""``/admin/api/skills``."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.queries import PAGED, Page
from api.endpoints.admin.resources import Body, IfMatch, Json, Version, described_by, etag_of, merged, no_content, one, page, same_id
from api.openapi import answers
from api.schemas.admin_answers import PageOf, SkillTold
from api.services import Services
from domain.errors import NotFound
from experts_registry.manifest import parse
from experts_registry.models import SkillModel
from experts_registry.skills import Skill

router = APIRouter(prefix="/skills")
_SCHEMA, _PATCH = described_by(SkillModel), described_by(SkillModel, partial=True)


def _view(skill: Skill) -> Json:
    return {"name": skill.name, "description": skill.description}


@router.get("", openapi_extra=PAGED, responses=answers(PageOf[SkillTold]))
async def list_skills(services: ServicesDep, asked: Page) -> Response:
    """The skills that queries are matched to."""
    return page(await services.skill_store.list(), lambda skill: skill.name, _view, asked)


@router.post("", status_code=201, openapi_extra=_SCHEMA, responses=answers(SkillTold, 201))
async def create_skill(services: ServicesDep, body: Body) -> Response:
    """Add a skill. Questions and profile runs add those that they use by themselves."""
    return await _create(services, body)


@router.get("/{name:path}", responses=answers(SkillTold))
async def get_skill(services: ServicesDep, name: str) -> Response:
    return _one(await services.skill_store.get(name))


@router.put("/{name:path}", openapi_extra=_SCHEMA, responses=answers(SkillTold, 200, 201))
async def put_skill(services: ServicesDep, name: str, body: Body, version: Version) -> Response:
    """Describe a skill, or add it when there is none."""
    body = same_id(body, name, key="name")
    try:
        return await _replace(services, body, version)
    except NotFound:
        version.require_existing(f"skill {name!r}")
        return await _create(services, body)


@router.patch("/{name:path}", openapi_extra=_PATCH, responses=answers(SkillTold))
async def patch_skill(services: ServicesDep, name: str, body: Body, version: Version) -> Response:
    """Change a skill's description (JSON merge patch)."""
    current = await services.skill_store.get(name)
    return await _replace(services, same_id(merged(_view(current), body), name, key="name"), version)


@router.delete("/{name:path}", status_code=204)
async def delete_skill(services: ServicesDep, name: str, version: Version) -> Response:
    """Remove a skill; 409 while an expert, a labelled question or a profile uses it."""
    await services.skill_store.delete(name, require=_is_at(version))
    await services.directory.refresh()
    return no_content()


async def _create(services: Services, body: Json) -> Response:
    given = parse(SkillModel, body)
    stored = await services.skill_store.create(Skill(given.name, given.description))
    await services.directory.refresh()
    return _one(stored, status=201, location=f"/admin/api/skills/{stored.name}")


async def _replace(services: Services, body: Json, version: IfMatch) -> Response:
    given = parse(SkillModel, body)
    stored = await services.skill_store.replace(Skill(given.name, given.description), require=_is_at(version))
    await services.directory.refresh()
    return _one(stored)


def _is_at(version: IfMatch) -> Callable[[Skill], None]:
    return lambda skill: version.check(etag_of(_view(skill)), f"skill {skill.name!r}")


def _one(skill: Skill, *, status: int = 200, location: str | None = None) -> Response:
    return one(_view(skill), etag_of(_view(skill)), status=status, location=location)
