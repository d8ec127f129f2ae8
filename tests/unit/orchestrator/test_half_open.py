"""Requests that meet an expert whose cool-down is over: one of them is its trial, the others are answered by somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

import pytest

from domain.errors import AllExpertsFailed, ExpertUnreachable, NoEligibleExpert
from domain.experts import ExpertCard, HealthState
from domain.plan import Outcome
from domain.registry import RegistrySnapshot
from domain.routing import PickRule, RoutingDecision, RoutingQuery
from domain.strategy import Strategy
from experts_registry.health import HealthBoard, HealthPolicy
from orchestrator.pipeline import Orchestrator
from tests.fakes.directory import FakeDirectory, FakeRouter, KeptTraces, card
from tests.fakes.registry import make_failure
from tests.fakes.workers import Fails, Says, ScriptedWorkers, Stalls
from tests.unit.orchestrator.test_pipeline import ask
from tests.unit.orchestrator.test_stream import collect

COOL_DOWN_S = 15.0
PANEL = Strategy(id="panel", pick=PickRule("top_k", k=2), aggregator="vote")


class RealHealth(FakeDirectory):
    """Fixed experts with real circuits, on a clock that the test moves."""

    def __init__(self, cards: Iterable[ExpertCard]) -> None:
        super().__init__(cards, strategies=(PANEL,))
        self.now = 1000.0
        self.board = HealthBoard(clock=lambda: self.now, policy=HealthPolicy(max_faults=3, cool_down_s=COOL_DOWN_S))

    def health_of(self, expert_id: str) -> HealthState:
        return self.board.state_of(expert_id)

    def begin_call(self, expert_id: str) -> int | None:
        return self.board.begin_call(expert_id)

    def record(self, outcome: Outcome, *, call: int | None = None) -> None:
        self.board.record(outcome, call=call)

    def open_circuit(self, expert_id: str) -> None:
        for _ in range(3):
            self.record(make_failure(expert_id))
        assert self.health_of(expert_id) is HealthState.OPEN

    def half_open(self, *expert_ids: str) -> None:
        for expert_id in expert_ids:
            self.open_circuit(expert_id)
        self.now += COOL_DOWN_S
        assert {self.health_of(expert_id) for expert_id in expert_ids} == {HealthState.HALF_OPEN}


class InOrder(FakeRouter):
    """Takes the first ``k`` experts in their order. Between its decision and the calls happens what *meanwhile* does."""

    def __init__(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self.meanwhile = meanwhile
        self.others_fit = True

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:
        decision = await super().route(query, snapshot)
        selected = decision.selected[: query.pick.k if query.pick.kind == "top_k" else 1]
        considered = tuple(replace(expert, selected=expert.expert_id in selected) for expert in decision.considered)
        await self.meanwhile()
        return replace(decision, selected=selected, considered=considered, others_fit=self.others_fit)


class World:
    """An orchestrator over the experts of *script*, best first. *num_together* requests are routed before any of them calls."""

    def __init__(self, script: dict[str, object], *, num_together: int = 1) -> None:
        self.workers = ScriptedWorkers(script)  # type: ignore[arg-type]
        self.directory = RealHealth(card(expert_id) for expert_id in script)
        self.router = InOrder(asyncio.Barrier(num_together).wait)
        self.sink = KeptTraces()
        routers = {"skills": self.router, "explicit": FakeRouter(name="explicit")}
        self.orchestrator = Orchestrator(directory=self.directory, routers=routers, workers=self.workers, sinks=[self.sink])

    @classmethod
    def losing(cls, script: dict[str, object], *expert_ids: str) -> World:
        """*expert_ids* are half-open, and while a request is routed others take their trials."""
        world = cls(script)
        world.directory.half_open(*expert_ids)

        async def taken() -> None:
            for expert_id in expert_ids:
                world.directory.begin_call(expert_id)

        world.router.meanwhile = taken
        return world

    async def text(self, model: str = "auto", *, stream: bool = False) -> str:
        if not stream:
            return (await self.orchestrator.run(ask(model))).choices[0].text
        return "".join((await collect(await self.orchestrator.open_stream(ask(model, stream=True))))[0])


async def test_a_call_from_before_the_circuit_opened_does_not_make_room_for_a_second_trial() -> None:
    world = World({"a": Stalls(), "b": "from b"})
    stale = asyncio.create_task(world.text())
    await world.workers.until_started("a")
    world.directory.half_open("a")
    trial = asyncio.create_task(world.text())
    await world.workers.until_started("a", 2)

    stale.cancel()
    await asyncio.gather(stale, return_exceptions=True)

    assert await world.text() == "from b"
    assert len(world.workers.calls_to("a")) == 2
    world.workers.release("a")
    assert await trial == "late"
    assert world.directory.health_of("a") is HealthState.CLOSED


async def test_a_call_from_before_the_circuit_opened_that_fails_late_is_no_failed_trial() -> None:
    world = World({"a": [Stalls(then=Fails(ExpertUnreachable("reset"))), "back"], "b": "from b"})
    stale = asyncio.create_task(world.text())
    await world.workers.until_started("a")
    world.directory.half_open("a")

    world.workers.release("a")
    assert await stale == "from b"

    assert await world.text() == "back"


async def test_while_the_trial_runs_others_are_routed_past_the_expert() -> None:
    world = World({"a": Stalls(), "b": "from b"})
    world.directory.half_open("a")
    trial = asyncio.create_task(world.text())
    await world.workers.until_started("a")

    assert await world.text() == "from b"

    decision = world.sink.traces[0].decision
    assert decision is not None
    assert {e.expert_id: e.why for e in decision.considered}["a"].startswith("unhealthy")
    trial.cancel()


async def test_requests_that_lose_the_race_for_the_trial_are_answered_by_the_next_best() -> None:
    world = World({"a": "from a", "b": "from b", "c": "from c"}, num_together=3)
    world.directory.half_open("a")

    texts = await asyncio.gather(*(world.text() for _ in range(3)))

    assert sorted(texts) == ["from a", "from b", "from b"]
    assert len(world.workers.calls_to("a")) == 1
    trace = next(trace for trace in world.sink.traces if trace.answer == "from b")
    assert [(call.expert_id, call.status) for call in trace.calls] == [("a", "skipped"), ("b", "ok")]
    assert trace.num_calls == 1
    assert trace.decision is not None
    assert trace.decision.selected == ("b",)
    assert [e.expert_id for e in trace.decision.considered if e.selected] == ["b"]
    assert trace.decision.reason.endswith("Note: a could not be called, so the next best was asked, b.")


async def test_a_streamed_request_that_loses_the_race_is_answered_by_the_next_best() -> None:
    world = World({"a": Stalls(then=Says("from a")), "b": "from b"}, num_together=2)
    world.directory.half_open("a")

    async def read() -> tuple[str, tuple[str, ...], str, int]:
        stream = await world.orchestrator.open_stream(ask(stream=True))
        told = stream.decision.selected, stream.announced_aggregator, stream.num_planned_calls
        return "".join((await collect(stream))[0]), *told

    both = [asyncio.create_task(read()) for _ in range(2)]
    done, _ = await asyncio.wait(both, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    world.workers.release("a")

    assert [task.result() for task in done] == [("from b", ("b",), "single", 1)]
    assert sorted([text for text, *_ in await asyncio.gather(*both)]) == ["from a", "from b"]
    assert [trace.status for trace in world.sink.traces] == ["ok", "ok"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_panel_that_loses_the_race_goes_on_with_the_rest(stream: bool) -> None:
    world = World.losing({"a": "from a", "b": "from b", "c": "from c"}, "a")

    assert await world.text("consilium/panel", stream=stream) == "from b"
    assert world.workers.called() == ["b"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_panel_of_which_nobody_can_be_called_falls_on_the_next_best(stream: bool) -> None:
    world = World.losing({"a": "from a", "b": "from b", "c": "from c", "d": "from d"}, "a", "b")

    assert await world.text("consilium/panel", stream=stream) == "from c"
    assert world.workers.called() == ["c"]
    assert world.sink.traces[0].aggregator == "single"


@pytest.mark.parametrize("stream", [False, True])
async def test_stand_ins_are_asked_in_turn_until_one_can_be_called(stream: bool) -> None:
    world = World({"a": Stalls(), "b": Stalls(), "c": "from c"}, num_together=3)
    world.directory.half_open("a", "b")

    running = [asyncio.create_task(world.text(stream=stream)) for _ in range(3)]
    done, _ = await asyncio.wait(running, timeout=5, return_when=asyncio.FIRST_COMPLETED)

    assert [task.result() for task in done] == ["from c"]
    assert world.workers.called() == ["a", "b", "c"]
    for task in running:
        task.cancel()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stand_in_that_fails_is_stood_in_for_too(stream: bool) -> None:
    world = World.losing({"a": "from a", "b": Fails(ExpertUnreachable("refused")), "c": "from c"}, "a")

    assert await world.text(stream=stream) == "from c"

    trace = world.sink.traces[0]
    assert [(call.expert_id, call.status) for call in trace.calls] == [("a", "skipped"), ("b", "error"), ("c", "ok")]
    assert trace.decision is not None
    assert trace.decision.selected == ("c",)
    assert trace.decision.reason.endswith("so the next best was asked, b. Note: b failed, so the next best was asked, c.")


@pytest.mark.parametrize("stream", [False, True])
async def test_where_nobody_is_left_everybody_is_named(stream: bool) -> None:
    gone = Fails(ExpertUnreachable("refused"))
    world = World.losing({"a": "from a", "b": gone, "c": gone}, "a")

    with pytest.raises(AllExpertsFailed) as caught:
        await world.text(stream=stream)

    assert [failure.expert_id for failure in caught.value.failures] == ["a", "b", "c"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_query_like_nothing_known_is_forced_on_nobody_else(stream: bool) -> None:
    world = World.losing({"a": "from a", "b": "from b"}, "a")
    world.router.others_fit = False

    with pytest.raises(NoEligibleExpert, match="unhealthy"):
        await world.text(stream=stream)

    assert world.workers.called() == []


async def test_an_expert_asked_for_by_name_is_not_replaced() -> None:
    world = World({"a": Stalls(), "b": "from b"})
    world.directory.half_open("a")
    both = [asyncio.create_task(world.text("a")) for _ in range(2)]

    done, _ = await asyncio.wait(both, timeout=5, return_when=asyncio.FIRST_COMPLETED)

    assert [type(task.exception()) for task in done] == [NoEligibleExpert]
    assert world.workers.called() == ["a"]
    for task in both:
        task.cancel()
