"""``/admin/api/profiles`` and ``/admin/api/aggregator-profiles``: what is measured, added up."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.counts import aggregator_profile_view, profile_view
from api.endpoints.admin.queries import PAGED, Page
from api.endpoints.admin.resources import etag_of, one, page
from api.openapi import answers
from api.schemas.admin_answers import AggregatorOutcomeTold, AggregatorProfileTold, OutcomeTold, PageOf, ProfileTold
from domain.skills import AggregatorProfile, SkillProfile

router = APIRouter()


@router.get("/profiles", openapi_extra=PAGED, responses=answers(PageOf[ProfileTold]))
async def list_profiles(services: ServicesDep, asked: Page) -> Response:
    """Per expert and skill: counts, accuracy and its 95 % Wilson interval. Experts that were never measured have no skills.
    `num_outdated` questions were answered by older cards of the expert alone, and are in none of the counts."""
    measured, outdated = await services.profile_store.profiles(), await services.profile_store.outdated()
    everyone = {expert_id: SkillProfile(expert_id) for expert_id in (*(card.id for card in await services.expert_store.list()), *outdated)}
    profiles = (everyone | measured).values()
    return page(
        profiles, lambda profile: profile.expert_id, lambda profile: profile_view(profile, outdated.get(profile.expert_id, 0)), asked
    )


@router.get("/profiles/{expert_id}", responses=answers(ProfileTold))
async def get_profile(services: ServicesDep, expert_id: str) -> Response:
    """What was measured about one expert; kept, and so readable, after the expert was removed."""
    profile = (await services.profile_store.profiles()).get(expert_id)
    if profile is None:
        await services.expert_store.get(expert_id)  # raises for an expert that never was
        profile = SkillProfile(expert_id)
    view = profile_view(profile, (await services.profile_store.outdated()).get(expert_id, 0))
    return one(view, etag_of(view))


@router.get("/outcomes", openapi_extra=PAGED, responses=answers(PageOf[OutcomeTold]))
async def list_outcomes(services: ServicesDep, asked: Page) -> Response:
    """Every graded answer that counts in a profile: the newest per expert and question."""
    return page(await services.profile_store.outcomes(), lambda o: f"{o.expert_id} {o.question_id}", asdict, asked)


@router.get("/aggregator-profiles", openapi_extra=PAGED, responses=answers(PageOf[AggregatorProfileTold]))
async def list_aggregator_profiles(services: ServicesDep, asked: Page) -> Response:
    """Per aggregator and category: how often it found the right answer among wrong ones."""
    profiles = await services.profile_store.aggregator_profiles()
    return page(profiles.values(), lambda profile: profile.expert_id, aggregator_profile_view, asked)


@router.get("/aggregator-profiles/{expert_id}", responses=answers(AggregatorProfileTold))
async def get_aggregator_profile(services: ServicesDep, expert_id: str) -> Response:
    profile = (await services.profile_store.aggregator_profiles()).get(expert_id)
    if profile is None:
        await services.expert_store.get(expert_id)
        profile = AggregatorProfile(expert_id)
    view = aggregator_profile_view(profile)
    return one(view, etag_of(view))


@router.get("/aggregator-outcomes", openapi_extra=PAGED, responses=answers(PageOf[AggregatorOutcomeTold]))
async def list_aggregator_outcomes(services: ServicesDep, asked: Page) -> Response:
    """Every graded synthesis."""
    return page(await services.profile_store.aggregator_outcomes(), lambda o: f"{o.expert_id} {o.question_id}", asdict, asked)
