"""What a caller's rights hide does not exist for that caller."""

from __future__ import annotations

from dataclasses import replace

from domain.access import EVERYTHING, PUBLIC, Access
from domain.errors import NoEligibleExpert
from domain.routing import RoutingDecision, ScoredExpert
from orchestrator.resolve import model_names
from orchestrator.visibility import MAX_VIEWS, Views, view_of
from tests.fakes.services import card, registry

SNAPSHOT = registry(card("law", labels=frozenset({"legal"})), card("law.eu", labels=frozenset({"legal", "eu"})), card("maths"))


def test_labels_hide_experts_from_who_lacks_one() -> None:
    assert set(view_of(SNAPSHOT, PUBLIC).seen.experts) == {"maths"}
    assert set(view_of(SNAPSHOT, Access(labels=frozenset({"legal"}))).seen.experts) == {"law", "maths"}
    assert view_of(SNAPSHOT, EVERYTHING).seen is SNAPSHOT


def test_only_allowed_experts_and_strategies_are_listed() -> None:
    access = Access(all_labels=True, experts=frozenset({"law"}), strategies=frozenset({"panel"}))

    assert model_names(view_of(SNAPSHOT, access).seen, access) == ["consilium/panel", "law"]


def test_a_hidden_reader_or_fallback_is_not_the_strategys_any_more() -> None:
    panel = replace(SNAPSHOT.strategies["panel"], aggregator_expert="law", fallback_expert="maths")
    seen = view_of(replace(SNAPSHOT, strategies={"panel": panel}), PUBLIC).seen

    assert (seen.strategies["panel"].aggregator_expert, seen.strategies["panel"].fallback_expert) == (None, "maths")


def test_what_a_router_says_names_nobody_hidden() -> None:
    """Routers know the whole registry, and their reasons may name whom they could not take."""
    view = view_of(SNAPSHOT, PUBLIC)
    told = view.decision(
        RoutingDecision(
            "skills",
            ("maths",),
            (ScoredExpert("maths", 1.0, True, "better than law.eu"), ScoredExpert("law", 0.5, False, "second")),
            "law and law.eu are not eligible; lawful, in-law and maths-law are other words",
            detail={"best": "law", "law": 3, "neighbours": [{"by": "law.eu"}]},
        )
    )

    assert [expert.expert_id for expert in told.considered] == ["maths"]
    assert told.considered[0].why == "better than another expert"
    assert told.reason == "another expert and another expert are not eligible; lawful, in-law and maths-law are other words"
    assert told.detail == {"best": "another expert", "neighbours": [{"by": "another expert"}]}


def test_an_error_of_a_router_names_nobody_hidden() -> None:
    error = NoEligibleExpert("law is not eligible.", reasons={"law": "open", "maths": "slower than law"})
    view_of(SNAPSHOT, PUBLIC).error(error)

    assert str(error) == error.message == "another expert is not eligible."
    assert error.reasons == {"maths": "slower than another expert"}


def test_views_are_kept_for_one_snapshot_and_bounded() -> None:
    views = Views()
    first = views.view(SNAPSHOT, PUBLIC)

    assert views.view(SNAPSHOT, Access()) is first
    for number in range(MAX_VIEWS):
        views.view(SNAPSHOT, Access(labels=frozenset({str(number)})))
    assert views.view(SNAPSHOT, PUBLIC) is not first
    assert views.view(replace(SNAPSHOT, version=9), PUBLIC).whole.version == 9
