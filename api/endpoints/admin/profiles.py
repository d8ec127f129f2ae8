"""``/admin/api/profiles`` and ``/admin/api/aggregator-profiles``: what is measured, added up."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.counts import aggregator_profile_view, profile_view
from api.endpoints.admin.queries import PAGED, Page
from api.endpoints.admin.resources import etag_of, one, page
from domain.skills import AggregatorProfile, SkillProfile

router = APIRouter()


@router.get("/profiles", openapi_extra=PAGED)
async def list_profiles(services: ServicesDep, asked: Page) -> Response:
    """Per expert and skill: counts, accuracy and its 95 % Wilson interval. Experts that were never measured have no skills."""
    measured = await services.profile_store.profiles()
    everyone = {card.id: SkillProfile(card.id) for card in await services.expert_store.list()}
    return page((everyone | measured).values(), lambda profile: profile.expert_id, profile_view, asked)


@router.get("/profiles/{expert_id}")
async def get_profile(services: ServicesDep, expert_id: str) -> Response:
    """What was measured about one expert; kept, and so readable, after the expert was removed."""
    profile = (await services.profile_store.profiles()).get(expert_id)
    if profile is None:
        await services.expert_store.get(expert_id)  # raises for an expert that never was
        profile = SkillProfile(expert_id)
    view = profile_view(profile)
    return one(view, etag_of(view))


@router.get("/outcomes", openapi_extra=PAGED)
async def list_outcomes(services: ServicesDep, asked: Page) -> Response:
    """Every graded answer that counts in a profile: the newest per expert and question."""
    return page(await services.profile_store.outcomes(), lambda o: f"{o.expert_id} {o.question_id}", asdict, asked)


@router.get("/aggregator-profiles", openapi_extra=PAGED)
async def list_aggregator_profiles(services: ServicesDep, asked: Page) -> Response:
    """Per aggregator and category: how often it found the right answer among wrong ones."""
    profiles = await services.profile_store.aggregator_profiles()
    return page(profiles.values(), lambda profile: profile.expert_id, aggregator_profile_view, asked)


@router.get("/aggregator-profiles/{expert_id}")
async def get_aggregator_profile(services: ServicesDep, expert_id: str) -> Response:
    profile = (await services.profile_store.aggregator_profiles()).get(expert_id)
    if profile is None:
        await services.expert_store.get(expert_id)
        profile = AggregatorProfile(expert_id)
    view = aggregator_profile_view(profile)
    return one(view, etag_of(view))


@router.get("/aggregator-outcomes", openapi_extra=PAGED)
async def list_aggregator_outcomes(services: ServicesDep, asked: Page) -> Response:
    """Every graded synthesis."""
    return page(await services.profile_store.aggregator_outcomes(), lambda o: f"{o.expert_id} {o.question_id}", asdict, asked)
