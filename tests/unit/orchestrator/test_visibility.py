"""What a caller's rights hide does not exist for that caller."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.access import EVERYTHING, PUBLIC, Access
from domain.errors import AllExpertsFailed, ExpertUnreachable, NoEligibleExpert
from domain.plan import ExpertCall, ExpertFailure
from domain.routing import RoutingDecision, ScoredExpert
from orchestrator.answer import Progress
from orchestrator.batch.line import Lines
from orchestrator.limits import Limits
from orchestrator.preparation import Preparation
from orchestrator.resolve import model_names
from orchestrator.visibility import MAX_VIEWS, Views, view_of
from tests.fakes.services import card, registry
from tests.fakes.workers import Fails
from tests.unit.orchestrator.test_pipeline import Setup, ask

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


LEGAL = card("law", labels=frozenset({"legal"}))
NO_SERVER = "server 'law' could not be loaded: 80 of 100 MB are pinned by law, maths waits"


def waiting(reply: Any) -> Any:
    """*reply* of an expert whose server has to be loaded first, which is told."""

    def loaded(call: ExpertCall) -> Any:
        if call.on_progress is not None:
            call.on_progress("law is being loaded for maths")
        return reply

    return loaded


@pytest.mark.parametrize("model", ["auto", "maths"])
@pytest.mark.parametrize("access", [PUBLIC, EVERYTHING])
async def test_a_failure_names_nobody_hidden(model: str, access: Access) -> None:
    """A managed server bears the id of the expert that it was made for."""
    error = ExpertUnreachable(NO_SERVER)
    setup = Setup({"maths": Fails(error)}, "maths", experts=(LEGAL, card("maths")))
    with pytest.raises(AllExpertsFailed) as whole:
        await setup.orchestrator.run(ask(model, access=access))
    with pytest.raises(AllExpertsFailed) as streamed:
        await setup.orchestrator.open_stream(ask(model, stream=True, access=access))

    told = [caught.value.failures[0].message for caught in (whole, streamed)] + [str(trace.calls[0].error) for trace in setup.sink.traces]
    assert [("law" in text, "maths waits" in text) for text in told] == [(access is EVERYTHING, True)] * 4
    assert error.message == NO_SERVER
    assert all(NO_SERVER in outcome.message for outcome in setup.directory.recorded if isinstance(outcome, ExpertFailure))


@pytest.mark.parametrize(("access", "who"), [(PUBLIC, "another expert"), (EVERYTHING, "law")])
async def test_a_wait_names_nobody_hidden(access: Access, who: str) -> None:
    setup = Setup({"maths": waiting("2")}, "maths", experts=(LEGAL, card("maths")))
    stream = await setup.orchestrator.open_stream(ask("maths", stream=True, access=access))

    assert f"{who} is being loaded for maths" in [event.text async for event in stream if isinstance(event, Progress)]


async def test_a_line_of_a_batch_names_nobody_hidden() -> None:
    setup = Setup({}, "maths", experts=(LEGAL, card("maths")))
    preparation = Preparation(directory=setup.directory, routers={"skills": setup.router}, limits=Limits())
    lines = Lines(preparation, preparation, [setup.sink], keep_text=False, wait_s=1.0)
    request = ask("auto", access=PUBLIC)
    with pytest.raises(AllExpertsFailed) as caught:
        lines.answer(request, await lines.route(request), {0: ExpertFailure("maths", ExpertUnreachable.code, NO_SERVER)})

    assert "pinned by another expert, maths waits" in caught.value.failures[0].message
    assert "law" not in str(setup.sink.traces[-1].calls[0].error)
