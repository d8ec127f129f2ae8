"""What a strategy and a request lay over scores, and whom a strategy shuts out: from the options to the trace."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from domain.adjustments import RoutingAdjustments
from domain.chat import ChatRequest, RequestOptions
from domain.errors import InvalidRequest, NoEligibleExpert
from domain.experts import ExpertCard, ExpertRole
from domain.plan import CallRole
from domain.routing import PickRule, RoutingDecision
from domain.strategy import Strategy
from domain.trace import CallRecord, Trace
from orchestrator.pipeline import Orchestrator
from routers.fixed import FixedRouter
from routers.skills_router import SkillsRouter
from routers.stickiness import SessionRoutes
from tests.fakes.directory import FakeDirectory
from tests.fakes.routing import card, skills_router, snapshot_of, specialists
from tests.fakes.workers import ScriptedWorkers

ONE = PickRule("top_k", 1)
LABELLED = frozenset({"internal"})


@dataclass
class Queues:
    """So many calls run and wait."""

    calls: dict[str, tuple[int, int]]

    def in_flight(self, expert_id: str) -> int:
        return self.calls.get(expert_id, (0, 0))[0]

    def queued(self, expert_id: str) -> int:
        return self.calls.get(expert_id, (0, 0))[1]

    def manages(self, card: ExpertCard) -> bool:
        del card
        return False


async def service(*strategies: Strategy, load: Queues | None = None, history: SessionRoutes | None = None) -> Orchestrator:
    cards = [card(expert_id, max_in_flight=4) for expert_id in specialists()]
    cards.append(card("fuser", roles=frozenset({ExpertRole.AGGREGATOR})))
    cards.append(card("secret", labels=LABELLED))
    directory = FakeDirectory(cards, strategies=strategies)
    known = snapshot_of(cards)
    router: SkillsRouter = await skills_router(known)
    routers = {"skills": router, "fixed": FixedRouter()}
    workers = ScriptedWorkers({expert.id: "42" for expert in cards})
    sinks = [] if history is None else [history]  # an empty one is false
    service = Orchestrator(directory=directory, routers=routers, workers=workers, sinks=sinks, load=load, history=history)
    directory._snapshot = type(known)(1, 1, known.experts, directory.snapshot().strategies, known.skills, known.profiles, {})
    return service


def ask(model: str = "consilium/one", *, session_id: str | None = None, **options: object) -> ChatRequest:
    messages = ({"role": "user", "content": "What is 40 plus 2?"},)
    return ChatRequest("r1", model, messages, options=RequestOptions(**options), session_id=session_id)  # type: ignore[arg-type]


async def decided(strategy: Strategy, request: ChatRequest, **parts: object) -> RoutingDecision:
    return await (await service(strategy, **parts)).decide(request)  # type: ignore[arg-type]


async def test_a_requests_boost_stands_over_the_strategys_for_the_same_expert() -> None:
    strategy = Strategy("one", pick=ONE, adjustments=RoutingAdjustments(boost={"mirror": 1.0, "atlas": 0.1}))

    alone = await decided(strategy, ask())
    asked = await decided(strategy, ask(boost={"mirror": -1.0}))

    assert alone.selected == ("mirror",)
    assert asked.selected == ("calculator",)
    assert asked.detail["adjustments"] == {"boost": {"mirror": -1.0, "atlas": 0.1}}


async def test_a_requests_weight_stands_in_place_of_the_strategys_and_zero_turns_it_off() -> None:
    strategy = Strategy("one", pick=ONE, adjustments=RoutingAdjustments(load_weight=0.5))
    load = Queues({"calculator": (4, 4)})

    assert (await decided(strategy, ask(), load=load)).selected == ("generalist",)
    assert (await decided(strategy, ask(load_weight=0.0), load=load)).selected == ("calculator",)
    assert (await decided(Strategy("one", pick=ONE), ask(load_weight=0.5), load=load)).selected == ("generalist",)


async def test_load_is_what_runs_and_waits_against_what_the_expert_takes_at_once() -> None:
    strategy = Strategy("one", pick=ONE, adjustments=RoutingAdjustments(load_weight=0.4))
    decision = await decided(strategy, ask(), load=Queues({"calculator": (1, 1)}))

    assert "−0.20 load" in next(expert.why for expert in decision.considered if expert.expert_id == "calculator")


async def test_nothing_about_adjustments_is_told_when_there_are_none() -> None:
    decision = await decided(Strategy("one", pick=ONE), ask())

    assert "adjustments" not in decision.detail


async def test_a_session_leans_towards_who_answered_it() -> None:
    history = SessionRoutes()
    strategy = Strategy("one", pick=ONE, adjustments=RoutingAdjustments(session_weight=1.0))
    panel = await service(strategy, Strategy("named", router="fixed", router_options={"experts": ["mirror"]}), history=history)

    before = await panel.decide(ask(session_id="s"))
    for _ in range(3):
        await panel.run(ask("consilium/named", session_id="s"))

    assert before.selected == ("calculator",)
    assert (await panel.decide(ask(session_id="s"))).selected == ("mirror",)
    assert (await panel.decide(ask(session_id="another"))).selected == ("calculator",)


async def test_whom_a_strategy_shuts_out_is_neither_asked_nor_fuses_and_it_is_said_why() -> None:
    denies = Strategy("one", pick=ONE, adjustments=RoutingAdjustments(deny=("calculator", "fuser")))
    panel = Strategy("panel", pick=PickRule("top_k", 2), adjustments=denies.adjustments)
    running = await service(denies, panel)
    decision = await running.decide(ask())
    fused = await running.run(ask("consilium/panel"))

    assert decision.selected == ("generalist",)
    assert ("calculator", "in the strategy's deny") in [(expert.expert_id, expert.why) for expert in decision.considered]
    assert [call.role for call in fused.trace.calls] == [CallRole.CANDIDATE, CallRole.CANDIDATE]


async def test_both_the_strategy_and_the_request_must_allow_an_expert() -> None:
    strategy = Strategy("one", pick=ONE, adjustments=RoutingAdjustments(allow=("atlas", "mirror")))

    assert (await decided(strategy, ask(allow=("atlas", "calculator")))).selected == ("atlas",)
    with pytest.raises(NoEligibleExpert, match="not in the strategy's allow"):
        await decided(strategy, ask(allow=("calculator",)))


@pytest.mark.parametrize(
    ("options", "param", "says"),
    [
        ({"boost": {"calculater": 0.1}}, "consilium.boost", "did you mean 'calculator'"),
        ({"boost": {"secret": 0.1}}, "consilium.boost", "there is no expert 'secret'"),
        ({"router_options": {"flor": 0.1}}, "consilium.router_options.flor", "did you mean 'floor'"),
        ({"router": "fixed", "router_options": {"experts": ["secret"]}}, "consilium.router_options.experts[0]", "no expert 'secret'"),
        ({"router": "fixed", "router_options": {"experts": "atlas"}}, "consilium.router_options.experts", "must be a list"),
    ],
)
async def test_a_wrong_option_is_refused_with_its_field_and_the_nearest_name(options: dict[str, object], param: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await decided(Strategy("one", pick=ONE), ask(**options))

    assert refused.value.param == param
    assert says in refused.value.message


@pytest.mark.parametrize(
    "options",
    [{"boost": {"atlas": 0.1}}, {"price_weight": 0.1}, {"load_weight": 0.1}, {"session_weight": 0.1}, {"router_options": {}}],
    ids=lambda options: next(iter(options)),
)
async def test_an_expert_asked_for_by_name_has_nothing_to_adjust(options: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="is one expert, there is nothing to") as refused:
        await decided(Strategy("one"), ask("atlas", **options))

    assert refused.value.param == f"consilium.{next(iter(options))}"


async def test_a_requests_router_options_stand_over_the_strategys_of_the_same_router_only() -> None:
    strategy = Strategy("one", router="fixed", router_options={"experts": ["mirror", "atlas"]}, pick=ONE)

    assert (await decided(strategy, ask())).selected == ("mirror",)
    assert (await decided(strategy, ask(router_options={"experts": ["atlas"]}))).selected == ("atlas",)
    assert (await decided(strategy, ask(router="skills", router_options={"floor": 0.1}))).detail["floor"] == 0.1


# --- the session's history ----------------------------------------------------------------------------------------------


def trace(*experts: str, router: str = "skills", status: str = "ok", fallback: bool = False) -> Trace:
    calls = tuple(CallRecord(expert, CallRole.CANDIDATE, "ok", 1.0) for expert in experts)
    decision = RoutingDecision(router, experts, fallback=fallback)
    return Trace("r", "auto", "auto", 0.0, status, decision, calls, session_id="s")


def test_later_answers_count_more_and_a_panel_shares_one_answer() -> None:
    history = SessionRoutes()
    history.emit(trace("a"))
    history.emit(trace("b", "c"))
    shares = history.shares((None, "s"))

    assert shares["a"] == pytest.approx(0.8 / 1.8)
    assert shares["b"] == shares["c"] == pytest.approx(0.5 / 1.8)
    assert history.shares((None, "unknown")) == {}


def test_what_failed_was_asked_by_name_or_fell_back_is_no_route() -> None:
    history = SessionRoutes()
    for told in (trace("a", status="error"), trace("a", router="explicit"), trace("a", fallback=True)):
        history.emit(told)

    assert history.shares((None, "s")) == {}


def test_a_long_session_keeps_no_more_experts_than_still_count() -> None:
    history = SessionRoutes()
    for number in range(200):
        history.emit(trace(f"expert-{number}"))

    assert len(history.shares((None, "s"))) < 30
    assert max(history.shares((None, "s")), key=history.shares((None, "s")).__getitem__) == "expert-199"


def test_who_was_selected_and_failed_is_no_part_of_the_history() -> None:
    history = SessionRoutes()
    failed = trace("a", "b")
    history.emit(Trace("r", "auto", None, 0.0, "ok", failed.decision, failed.calls[:1], session_id="s"))

    assert history.shares((None, "s")) == {"a": 1.0}


async def test_a_request_may_ask_for_another_pick_with_a_threshold_of_its_own() -> None:
    """A gate at the half that a dynamic set has to reach would let nobody in beside the best."""
    dynamic = Strategy("one", pick=PickRule.of("dynamic", 2))
    gate = Strategy("one", pick=PickRule.of("gate", 2))

    assert (await decided(dynamic, ask())).selected == ("calculator",)
    assert (await decided(dynamic, ask(pick="gate"))).selected == ("calculator", "generalist")
    assert (await decided(gate, ask())).selected == ("calculator", "generalist")
    assert (await decided(gate, ask(pick="dynamic"))).selected == ("calculator",)
    assert (await decided(Strategy("one", pick=PickRule.of("gate", 2, 0.4)), ask())).selected == ("calculator",)
