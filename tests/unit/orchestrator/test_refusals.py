"""What is refused before any expert is called, and in which words."""

from __future__ import annotations

import asyncio

import pytest

from domain.chat import RequestOptions
from domain.errors import ContextTooLong, DeadlineExceeded, ExpertRejected, InvalidRequest, ModelNotFound, NoEligibleExpert
from domain.experts import Capability, HealthState
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision, RoutingQuery
from tests.fakes.directory import card
from tests.fakes.workers import Fails
from tests.unit.orchestrator.test_pipeline import Setup, ask


async def test_an_unknown_model_is_refused_with_the_nearest_names() -> None:
    setup = Setup({}, "a")

    with pytest.raises(ModelNotFound, match="'fuser'"):
        await setup.orchestrator.run(ask("fusser"))


async def test_filtered_experts_say_why() -> None:
    experts = (
        card("off", enabled=False),
        card("sick", capabilities=frozenset({Capability.TOOLS})),
        card("blind"),
        card("small", context_length=3),
        card("good", capabilities=frozenset({Capability.TOOLS})),
    )
    setup = Setup({"good": "2"}, experts=experts)
    setup.directory.health["sick"] = HealthState.OPEN

    decision = await setup.orchestrator.decide(ask(params={"tools": [{"type": "function"}]}))

    why = {c.expert_id: c.why for c in decision.considered if not c.selected}
    assert why["off"] == "disabled"
    assert "unhealthy" in why["sick"]
    assert why["blind"] == "lacks tools"
    assert decision.selected == ("good",)


async def test_nobody_eligible_names_every_reason() -> None:
    setup = Setup({}, experts=(card("a", enabled=False), card("b", enabled=False)))

    with pytest.raises(NoEligibleExpert) as caught:
        await setup.orchestrator.run(ask())

    assert caught.value.reasons == {"a": "disabled", "b": "disabled"}


async def test_a_conversation_that_fits_nobody_is_the_callers_to_shorten() -> None:
    setup = Setup({}, experts=(card("a", context_length=10, chars_per_token=1.0),))

    with pytest.raises(ContextTooLong, match="10 tokens"):
        await setup.orchestrator.run(ask(text="x" * 100))


async def test_experts_with_foreign_labels_are_neither_used_nor_named() -> None:
    setup = Setup({}, experts=(card("secret", labels=frozenset({"legal"})),))

    with pytest.raises(NoEligibleExpert) as caught:
        await setup.orchestrator.run(ask())
    with pytest.raises(ModelNotFound):
        await Setup({}, experts=(card("secret", labels=frozenset({"legal"})),)).orchestrator.run(ask("secret"))

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        (RequestOptions(k=0), "consilium.k"),
        (RequestOptions(k=99), "consilium.k"),
        (RequestOptions(pick="best"), "consilium.pick"),
        (RequestOptions(aggregator="blend"), "consilium.aggregator"),
        (RequestOptions(allow=("nobody",)), "consilium.allow"),
        (RequestOptions(deny=("nobody",)), "consilium.deny"),
    ],
)
async def test_a_wrong_option_names_its_field(options: RequestOptions, param: str) -> None:
    setup = Setup({}, "a")

    with pytest.raises(InvalidRequest) as caught:
        await setup.orchestrator.run(ask(options=options))

    assert caught.value.param == param


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("options", "param", "says"),
    [
        (RequestOptions(router="skills"), "router", "the model 'a' is one expert, there is nothing to route"),
        (RequestOptions(k=3), "k", "there is nothing to pick"),
        (RequestOptions(pick="top_k"), "pick", "there is nothing to pick"),
        (RequestOptions(aggregator="vote"), "aggregator", "there is nothing to aggregate"),
        (RequestOptions(aggregator_expert="fuser"), "aggregator_expert", "there is nothing to aggregate"),
        (RequestOptions(allow=("nosuch",)), "allow", "there is no expert 'nosuch'"),
        (RequestOptions(deny=("nosuch",)), "deny", "there is no expert 'nosuch'"),
        (RequestOptions(deny=("b", "a")), "deny", "the model 'a' asks for that expert, which is in consilium.deny"),
        (RequestOptions(allow=("b",)), "allow", "which is not in consilium.allow"),
    ],
)
async def test_options_without_a_meaning_for_one_expert_are_refused(options: RequestOptions, param: str, says: str, stream: bool) -> None:
    setup = Setup({}, "a")
    asked = ask("a", options=options, stream=stream)

    with pytest.raises(InvalidRequest) as caught:
        await (setup.orchestrator.open_stream(asked) if stream else setup.orchestrator.run(asked))

    assert caught.value.param == f"consilium.{param}"
    assert says in caught.value.message


async def test_options_that_one_expert_meets_are_taken() -> None:
    setup = Setup({"a": "2"})
    options = RequestOptions(k=1, allow=("a", "b"), deny=("c",), max_calls=1, timeout_s=5.0, seed=7)

    assert (await setup.orchestrator.run(ask("a", options=options))).choices[0].text == "2"


async def test_what_an_expert_refuses_is_told_with_its_field() -> None:
    refused = ExpertRejected("temperature must be positive", param="temperature")
    other = ExpertRejected("no such format", param="response_format")

    for failures, param in (((refused, refused), "temperature"), ((refused, other), None)):
        setup = Setup({name: Fails(failure) for name, failure in zip("ab", failures, strict=True)}, "a", "b")
        with pytest.raises(InvalidRequest) as caught:
            await setup.orchestrator.run(ask("consilium/vote"))
        assert caught.value.param == param


async def test_the_wanted_length_of_the_answer_is_the_experts_affair() -> None:
    setup = Setup({"a": "2"}, experts=(card("a", context_length=100, chars_per_token=1.0),))

    assert (await setup.orchestrator.run(ask(params={"max_tokens": 4096}))).choices[0].text == "2"


async def test_an_unhealthy_expert_with_room_is_not_the_callers_fault() -> None:
    experts = (card("small", context_length=10, chars_per_token=1.0), card("large", context_length=1000, chars_per_token=1.0))
    setup = Setup({}, experts=experts)
    setup.directory.health["large"] = HealthState.OPEN

    with pytest.raises(NoEligibleExpert, match="unhealthy"):
        await setup.orchestrator.run(ask(text="x" * 100))


async def test_hints_do_not_name_experts_that_the_caller_may_not_know() -> None:
    experts = (card("secret-law", labels=frozenset({"legal"})), card("a"))

    with pytest.raises(ModelNotFound) as unknown:
        await Setup({}, experts=experts).orchestrator.run(ask("secret-lav"))
    with pytest.raises(InvalidRequest) as denied:
        await Setup({}, experts=experts).orchestrator.run(ask(options=RequestOptions(deny=("secret-law",))))

    assert "secret-law" not in str(unknown.value)
    assert "known are a" in str(denied.value)


async def test_routing_counts_against_the_deadline() -> None:
    setup = Setup({}, "a")

    async def slow(query: object, snapshot: object) -> RoutingDecision:
        return await asyncio.get_running_loop().create_future()

    setup.router.route = slow  # type: ignore[method-assign]

    with pytest.raises(DeadlineExceeded, match="routed"):
        await setup.orchestrator.run(ask(options=RequestOptions(timeout_s=0.01)))


def aggregated_by(expert: str, **options: object) -> RequestOptions:
    return RequestOptions(aggregator_expert=expert, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("consilium/panel", aggregated_by("fusser"), "there is no expert 'fusser'; did you mean 'fuser'"),
        ("consilium/panel", aggregated_by("fuser", allow=("a", "b")), "'fuser' cannot aggregate: not in consilium.allow"),
        ("consilium/panel", aggregated_by("fuser", deny=("fuser",)), "'fuser' cannot aggregate: in consilium.deny"),
        ("consilium/panel", aggregated_by("off"), "'off' cannot aggregate: disabled"),
        ("consilium/panel", aggregated_by("sick"), "'sick' cannot aggregate: unhealthy"),
        ("consilium/panel", aggregated_by("secret"), "there is no expert 'secret'"),
        ("consilium/vote", aggregated_by("fuser"), "the aggregator 'vote' calls no expert"),
        ("consilium/panel", aggregated_by("fuser", aggregator="first"), "the aggregator 'first' calls no expert"),
        ("a", aggregated_by("fuser"), "the model 'a' is one expert, there is nothing to aggregate"),
    ],
)
async def test_an_aggregating_expert_that_cannot_be_asked_is_refused_before_routing(model: str, options: RequestOptions, says: str) -> None:
    experts = (card("a"), card("b"), card("fuser"), card("off", enabled=False), card("sick"), card("secret", labels=frozenset({"legal"})))
    setup = Setup({}, "a", "b", experts=experts)
    setup.directory.health["sick"] = HealthState.OPEN

    with pytest.raises(InvalidRequest) as caught:
        await setup.orchestrator.run(ask(model, options=options))

    assert says in caught.value.message
    assert caught.value.param == "consilium.aggregator_expert"
    assert setup.router.queries == []


async def test_an_aggregating_expert_that_falls_ill_meanwhile_gives_way_to_the_next() -> None:
    setup = Setup({"a": "2", "b": "3", "fuser": "two"}, "a", "b")
    route = setup.router.route

    async def falls_ill(query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:
        setup.directory.health["c"] = HealthState.OPEN
        return await route(query, snapshot)

    setup.router.route = falls_ill  # type: ignore[method-assign]

    answer = await setup.orchestrator.run(ask("consilium/panel", options=aggregated_by("c")))

    assert answer.choices[0].text == "two"


MANY = tuple(card(name, capabilities=frozenset({Capability.MULTIPLE_CHOICES})) for name in "abc")


@pytest.mark.parametrize("model", ["consilium/vote", "consilium/first", "consilium/panel"])
async def test_a_panel_gives_one_choice_and_says_so(model: str) -> None:
    setup = Setup({}, "a", "b", experts=MANY)

    with pytest.raises(InvalidRequest, match=r"this query goes to 2 \(a, b\); leave n out") as caught:
        await setup.orchestrator.run(ask(model, params={"n": 3}))

    assert caught.value.param == "n"


async def test_one_expert_gives_as_many_choices_as_it_can() -> None:
    setup = Setup({"a": "2"}, "a", experts=MANY)

    await setup.orchestrator.run(ask("consilium/panel", params={"n": 3}))

    assert setup.workers.calls[0].params == {"n": 3}
