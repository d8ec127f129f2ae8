"""The request's path with scripted experts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from domain.chat import ChatRequest, RequestOptions, Usage
from domain.errors import (
    AllExpertsFailed,
    DeadlineExceeded,
    ExpertOverloaded,
    ExpertProtocolError,
    ExpertRejected,
    ExpertUnreachable,
    InvalidRequest,
    NoEligibleExpert,
    Overloaded,
)
from domain.experts import Capability, ExpertRole, HealthState
from domain.plan import CallRole, Candidate, ExpertFailure
from domain.routing import PickRule
from domain.skills import AggregatorProfile, SkillCount
from domain.strategy import Strategy
from orchestrator.pipeline import Orchestrator
from tests.fakes.directory import FakeDirectory, FakeRouter, KeptTraces, card
from tests.fakes.workers import Fails, Says, ScriptedWorkers, Stalls

PANEL = Strategy(id="panel", pick=PickRule("top_k", k=3), aggregator="fuse")
VOTE = Strategy(id="vote", pick=PickRule("top_k", k=3), aggregator="vote")
FIRST = Strategy(id="first", pick=PickRule("top_k", k=3), aggregator="first")
FUSER = card("fuser", roles=frozenset({ExpertRole.AGGREGATOR}))
EXPERTS = (card("a"), card("b"), card("c"))


def ask(model: str = "auto", text: str = "How much is 1 + 1?", **changes: object) -> ChatRequest:
    messages = ({"role": "user", "content": text},)
    return ChatRequest(id="req-1", model=model, messages=messages, **changes)  # type: ignore[arg-type]


class Setup:
    """An orchestrator over fakes, and the fakes."""

    def __init__(self, script: dict[str, object], *selected: str, experts: tuple = (*EXPERTS, FUSER), **directory: object) -> None:
        self.workers = ScriptedWorkers(script)  # type: ignore[arg-type]
        self.directory = FakeDirectory(experts, strategies=(PANEL, VOTE, FIRST), **directory)  # type: ignore[arg-type]
        self.router = FakeRouter(*selected, category="sums")
        self.sink = KeptTraces()
        explicit = FakeRouter(name="explicit")
        self.orchestrator = Orchestrator(
            directory=self.directory, routers={"skills": self.router, "explicit": explicit}, workers=self.workers, sinks=[self.sink]
        )

    @property
    def trace(self):
        assert len(self.sink.traces) == 1
        return self.sink.traces[0]


async def test_one_selected_expert_answers_without_aggregation() -> None:
    setup = Setup({"a": "2"}, "a")

    answer = await setup.orchestrator.run(ask())

    assert answer.choices[0].text == "2"
    assert setup.workers.called() == ["a"]
    assert setup.trace.aggregator == "single"
    assert setup.trace.strategy == "auto"
    assert answer.usage.total_tokens == 8


async def test_a_panel_is_fused_by_the_aggregator_and_usage_adds_up() -> None:
    setup = Setup({"a": "2", "b": "3", "c": "2", "fuser": "two"}, "a", "b", "c")

    answer = await setup.orchestrator.run(ask("consilium/panel"))

    assert answer.choices[0].text == "two"
    assert setup.trace.aggregator == "fuse:fuser"
    assert answer.usage.total_tokens == 4 * 8
    assert [call.role for call in setup.trace.calls] == [CallRole.CANDIDATE] * 3 + [CallRole.AGGREGATOR]
    sent = setup.workers.calls_to("fuser")[0].messages
    assert "2" in str(sent)
    assert "3" in str(sent)


async def test_one_expert_fails_and_the_answer_stands() -> None:
    setup = Setup({"a": Fails(ExpertUnreachable("refused")), "b": "3", "c": "3"}, "a", "b", "c")

    answer = await setup.orchestrator.run(ask("consilium/vote"))

    assert answer.choices[0].text == "3"
    failures = [o for o in setup.directory.recorded if isinstance(o, ExpertFailure)]
    assert [f.expert_id for f in failures] == ["a"]
    assert [c.status for c in setup.trace.calls if c.expert_id == "a"] == ["error"]


async def test_one_candidate_left_is_not_aggregated() -> None:
    setup = Setup({"a": "2", "b": Fails(ExpertUnreachable("x")), "c": Fails(ExpertUnreachable("x"))}, "a", "b", "c")

    answer = await setup.orchestrator.run(ask("consilium/panel"))

    assert answer.choices[0].text == "2"
    assert "fuser" not in setup.workers.called()
    assert setup.trace.aggregator == "single"


async def test_all_experts_fail_and_the_error_names_each() -> None:
    setup = Setup({"a": Fails(ExpertUnreachable("refused")), "b": Fails(ExpertProtocolError("half an answer"))}, "a", "b")

    with pytest.raises(AllExpertsFailed) as caught:
        await setup.orchestrator.run(ask("consilium/vote"))

    assert {(f.expert_id, f.code) for f in caught.value.failures} == {("a", "expert_unreachable"), ("b", "expert_protocol_error")}
    assert "refused" in str(caught.value)
    assert "half an answer" in str(caught.value)
    assert setup.trace.status == "error"
    assert setup.trace.error_code == "all_experts_failed"


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (ExpertRejected("temperature must be positive"), InvalidRequest),
        (ExpertOverloaded("queue full", retry_after_s=7), Overloaded),
    ],
)
async def test_when_every_expert_fails_alike_the_error_is_of_that_kind(failure: Exception, expected: type[Exception]) -> None:
    setup = Setup({"a": Fails(failure), "b": Fails(failure)}, "a", "b")  # type: ignore[arg-type]

    with pytest.raises(expected) as caught:
        await setup.orchestrator.run(ask("consilium/vote"))

    if isinstance(caught.value, Overloaded):
        assert caught.value.retry_after_s == 7


async def test_the_aggregator_fails_and_the_best_scored_candidate_stands_in() -> None:
    setup = Setup({"a": "2", "b": "3", "fuser": Fails(ExpertUnreachable("gone"))}, "a", "b")

    answer = await setup.orchestrator.run(ask("consilium/panel"))

    assert answer.choices[0].text == "2"
    assert setup.trace.aggregator == "fuse:fuser (fallback)"
    assert setup.trace.status == "ok"


async def test_the_measured_profile_chooses_the_fusing_expert_for_the_category() -> None:
    profiles = {
        "a": AggregatorProfile("a", {"sums": SkillCount(10, 9)}, SkillCount(20, 9)),
        "b": AggregatorProfile("b", {"sums": SkillCount(10, 2)}, SkillCount(20, 12)),
    }
    setup = Setup({"a": ["2", "fused by a"], "b": "3"}, "a", "b", aggregator_profiles=profiles)

    answer = await setup.orchestrator.run(ask("consilium/panel"))

    assert answer.choices[0].text == "fused by a"


async def test_a_deadline_splits_a_plan() -> None:
    """Experts that answer in time are used; the one that hangs becomes a failure when its worker gives up."""
    setup = Setup({"a": "2", "b": Stalls(then=Fails(ExpertProtocolError("never")))}, "a", "b")
    running = asyncio.create_task(setup.orchestrator.run(ask("consilium/vote")))
    await setup.workers.until_started("b")
    setup.workers.release("b")

    answer = await running

    assert answer.choices[0].text == "2"


async def test_a_worker_that_ignores_the_deadline_is_cut_off() -> None:
    setup = Setup({"a": Stalls()}, "a")

    with pytest.raises(DeadlineExceeded):
        await setup.orchestrator.run(ask(options=RequestOptions(timeout_s=0.01)))

    assert setup.workers.cancelled == ["a"]


async def test_cancelling_the_request_cancels_every_expert() -> None:
    setup = Setup({"a": Stalls(), "b": Stalls()}, "a", "b")
    running = asyncio.create_task(setup.orchestrator.run(ask("consilium/vote")))
    await setup.workers.until_started("a")
    await setup.workers.until_started("b")

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert sorted(setup.workers.cancelled) == ["a", "b"]
    assert setup.trace.status == "cancelled"
    assert sorted((c.expert_id, c.status) for c in setup.trace.calls) == [("a", "cancelled"), ("b", "cancelled")]


async def test_a_bug_in_a_worker_is_not_swallowed() -> None:
    setup = Setup({}, "a")

    with pytest.raises(AssertionError, match="unexpected call"):
        await setup.orchestrator.run(ask())

    assert setup.trace.error_code == "internal_error"


async def test_vote_takes_the_majority_of_normalised_answers() -> None:
    setup = Setup({"a": "5", "b": " 1,000. ", "c": "1000"}, "a", "b", "c")

    answer = await setup.orchestrator.run(ask("consilium/vote"))

    assert answer.choices[0].text == " 1,000. "


async def test_a_tied_vote_goes_to_the_higher_routing_score() -> None:
    setup = Setup({"a": "5", "b": "6"}, "b", "a")

    answer = await setup.orchestrator.run(ask("consilium/vote"))

    assert answer.choices[0].text == "6"


async def test_an_expert_drawn_twice_is_called_twice_with_another_seed() -> None:
    setup = Setup({"a": ["1", "2"], "b": "2"})
    setup.router._choose = lambda query: ["a", "b", "a"]

    await setup.orchestrator.run(ask("consilium/vote", params={"seed": 5}))

    assert [call.params.get("seed") for call in setup.workers.calls_to("a")] == [5, 7]


async def test_max_calls_leaves_room_for_the_aggregator() -> None:
    setup = Setup({"a": "2", "b": "3", "c": "4", "fuser": "two"}, "a", "b", "c")

    await setup.orchestrator.run(ask("consilium/panel", options=RequestOptions(max_calls=3)))

    assert sorted(setup.workers.called()) == ["a", "b", "fuser"]


async def test_the_cards_sampling_defaults_yield_to_the_caller() -> None:
    experts = (card("a", sampling={"temperature": 0.0, "top_p": 0.9}),)
    setup = Setup({"a": "2"}, "a", experts=experts)

    await setup.orchestrator.run(ask(params={"temperature": 1.0, "logit_bias": {"1": 2}}))

    assert setup.workers.calls[0].params == {"temperature": 1.0, "top_p": 0.9, "logit_bias": {"1": 2}}


async def test_what_shapes_the_answer_holds_for_candidates_and_aggregator_alike() -> None:
    """Any of them may end up as the answer: the only candidate left, the voted one, the stand-in for a failed aggregator."""
    able = frozenset({Capability.TOOLS, Capability.JSON_SCHEMA})
    experts = (card("a", capabilities=able), card("b", capabilities=able), card("fuser", capabilities=able, roles=FUSER.roles))
    setup = Setup({"a": "2", "b": "3", "fuser": "two"}, "a", "b", experts=experts)
    params = {"tools": [{"type": "function"}], "response_format": {"type": "json_object"}, "n": 1}

    await setup.orchestrator.run(ask("consilium/panel", params=params))

    assert setup.workers.calls_to("fuser")[0].params == params
    assert setup.workers.calls_to("a")[0].params == {"tools": params["tools"], "response_format": params["response_format"]}


async def test_an_aggregator_that_lacks_a_needed_capability_gives_way_to_a_vote() -> None:
    able = frozenset({Capability.TOOLS})
    experts = (card("a", capabilities=able), card("b", capabilities=able), FUSER)
    setup = Setup({"a": "2", "b": "2"}, "a", "b", experts=experts)

    answer = await setup.orchestrator.run(ask("consilium/panel", params={"tools": [{"type": "function"}]}))

    assert answer.choices[0].text == "2"
    assert setup.trace.aggregator == "vote"


async def test_tool_calls_of_candidates_are_shown_to_the_aggregator() -> None:
    able = frozenset({Capability.TOOLS})
    called = {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]}
    experts = (card("a", capabilities=able), card("b", capabilities=able), card("fuser", capabilities=able, roles=FUSER.roles))
    setup = Setup({"a": Says("", message=called), "b": "3", "fuser": "two"}, "a", "b", experts=experts)

    await setup.orchestrator.run(ask("consilium/panel", params={"tools": [{"type": "function"}]}))

    assert "weather" in str(setup.workers.calls_to("fuser")[0].messages)


async def test_an_expert_asked_for_by_name_is_called_without_a_router() -> None:
    setup = Setup({"fuser": "hello"})

    answer = await setup.orchestrator.run(ask("fuser"))

    assert answer.choices[0].text == "hello"
    assert setup.router.queries == []
    assert setup.trace.strategy is None


@pytest.mark.parametrize("model", ["auto", "auto:latest", "consilium/auto", "consilium/panel:latest"])
async def test_virtual_model_names_are_understood(model: str) -> None:
    setup = Setup({"a": "2"}, "a")

    assert (await setup.orchestrator.run(ask(model))).choices[0].text == "2"


async def test_a_repeated_draw_at_temperature_zero_is_sampled() -> None:
    """Otherwise the second call would only repeat the first."""
    setup = Setup({"a": ["1", "2"]}, experts=(card("a", sampling={"temperature": 0.0}),))
    setup.router._choose = lambda query: ["a", "a"]

    await setup.orchestrator.run(ask("consilium/vote"))

    assert [call.params["temperature"] for call in setup.workers.calls] == [0.0, 0.7]


async def test_an_aggregator_that_turns_up_after_planning_does_not_break_the_cap_on_calls() -> None:
    setup = Setup({"a": "2", "b": "2", "c": "3"}, "a", "b", "c")
    setup.directory.health["fuser"] = HealthState.OPEN
    setup.router._choose = lambda query: ["a", "b", "c"]
    request = ask("consilium/panel", options=RequestOptions(max_calls=3))
    recovered = iter([HealthState.OPEN, HealthState.CLOSED])
    health_of = setup.directory.health_of
    setup.directory.health_of = lambda e: next(recovered, HealthState.CLOSED) if e == "fuser" else health_of(e)  # type: ignore[method-assign]

    answer = await setup.orchestrator.run(request)

    assert len(setup.workers.calls) == 3
    assert answer.choices[0].text == "2"


async def test_another_router_does_not_get_the_strategys_router_options() -> None:
    setup = Setup({"a": "2"}, "a")
    own = Strategy(id="own", router="other", router_options={"odd": 1}, aggregator="first")
    setup.directory._snapshot.strategies["own"] = own  # type: ignore[index]

    await setup.orchestrator.run(ask("consilium/own", options=RequestOptions(router="skills")))

    assert setup.router.queries[0].options == {}


async def test_a_bare_k_asks_for_exactly_that_many() -> None:
    setup = Setup({"a": "2", "b": "2"}, "a", "b")

    await setup.orchestrator.run(ask(options=RequestOptions(k=2, aggregator="vote")))

    assert setup.router.queries[0].pick == PickRule("top_k", 2, PickRule().threshold)


async def test_calls_of_the_router_itself_are_traced_and_paid_for() -> None:
    setup = Setup({"a": "2"}, "a")
    own = Candidate("c", (), Usage(10, 20), latency_s=0.5)
    decide = setup.router.route

    async def route(query: object, snapshot: object) -> object:
        return replace(await decide(query, snapshot), calls=(own,))  # type: ignore[arg-type]

    setup.router.route = route  # type: ignore[method-assign,assignment]

    answer = await setup.orchestrator.run(ask())

    assert [(c.expert_id, c.role) for c in setup.trace.calls] == [("c", CallRole.ANNOTATOR), ("a", CallRole.CANDIDATE)]
    assert answer.usage.total_tokens == 38


async def test_overhead_is_the_total_without_the_wait_for_experts() -> None:
    setup = Setup({"a": "2"}, "a")

    await setup.orchestrator.run(ask())

    timings = setup.trace.timings
    assert timings.overhead == pytest.approx(timings.total - timings.experts - timings.aggregate)
    assert 0 <= timings.overhead <= timings.total


async def test_reasoning_is_kept_apart_from_candidates_that_are_fused() -> None:
    setup = Setup({"a": Says("2", reasoning="secret scratch"), "b": "3", "fuser": "two"}, "a", "b")

    await setup.orchestrator.run(ask("consilium/panel"))

    assert "secret scratch" not in str(setup.workers.calls_to("fuser")[0].messages)


async def test_an_expert_whose_circuit_opened_meanwhile_is_not_called() -> None:
    setup = Setup({"a": "2"}, "a")
    setup.directory.begin_call = lambda expert_id: None  # type: ignore[method-assign]

    with pytest.raises(NoEligibleExpert, match="unhealthy"):
        await setup.orchestrator.run(ask())

    assert setup.workers.called() == []


async def test_a_cancelled_call_says_nothing_about_the_expert() -> None:
    setup = Setup({"a": Stalls()}, "a")
    running = asyncio.create_task(setup.orchestrator.run(ask()))
    await setup.workers.until_started("a")

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert [(o.expert_id, o.expert_at_fault) for o in setup.directory.recorded if isinstance(o, ExpertFailure)] == [("a", False)]


async def test_successes_close_circuits_before_aggregation_can_fail() -> None:
    setup = Setup({"a": "2", "b": "3", "fuser": Fails(ExpertUnreachable("gone"))}, "a", "b")

    await setup.orchestrator.run(ask("consilium/panel"))

    assert [type(o) for o in setup.directory.recorded] == [Candidate, Candidate, ExpertFailure]


async def test_deadlines_are_measured_by_the_clock_that_is_given() -> None:
    now = 5000.0
    workers = ScriptedWorkers({"a": "1"})
    orchestrator = Orchestrator(
        directory=FakeDirectory([card("a")], strategies=(FIRST,)),
        routers={"skills": FakeRouter("a")},
        workers=workers,
        clock=lambda: now,
    )
    await orchestrator.run(ask("consilium/first"))
    (call,) = workers.calls
    now += FIRST.timeout_s - 1

    assert call.deadline.remaining_s == 1
