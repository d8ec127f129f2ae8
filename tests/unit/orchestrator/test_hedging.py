"""A second call for an expert that is silent: when it is made, whose answer is heard, and when it is not made."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from domain.budget import Budget
from domain.chat import RequestOptions
from domain.errors import AllExpertsFailed, ExpertProtocolError, ExpertUnreachable
from domain.experts import Backend, ExpertCard, HealthState
from domain.plan import ExpertCall
from domain.routing import PickRule
from domain.strategy import Strategy
from domain.trace import Trace
from orchestrator.limits import Limits
from orchestrator.pipeline import Orchestrator
from tests.fakes.directory import FakeDirectory, FakeRouter, KeptTraces, card
from tests.fakes.workers import Fails, Says, ScriptedWorkers, Stalls
from tests.unit.orchestrator.test_pipeline import ask
from tests.unit.orchestrator.test_stream import collect

SOON_S = 0.01
HEDGED = Strategy(id="hedged", pick=PickRule("top_k", k=1), hedge_after_s=SOON_S)
PANEL = Strategy(id="panel", pick=PickRule("top_k", k=2), aggregator="first", hedge_after_s=SOON_S)


class OneOf(FakeRouter):
    """Takes the first ``k`` of the eligible; the others fit less and less."""

    async def route(self, query: Any, snapshot: Any) -> Any:

        decision = await super().route(query, snapshot)
        selected = decision.selected[: query.pick.k if query.request.model != query.experts[0].id else 1]
        considered = tuple(replace(expert, selected=expert.expert_id in selected) for expert in decision.considered)
        return replace(decision, selected=selected, considered=considered)


class Busy:
    """``Load`` of experts that have as many calls as they may, and of such that run on managed servers."""

    def __init__(self, *expert_ids: str, managed: tuple[str, ...] = ()) -> None:
        self._busy, self._managed = expert_ids, managed

    def in_flight(self, expert_id: str) -> int:
        return 10**6 if expert_id in self._busy else 0

    def queued(self, expert_id: str) -> int:
        return 0

    def manages(self, card: ExpertCard) -> bool:
        return card.id in self._managed


class World:
    def __init__(self, script: dict[str, Any], *, limits: Limits | None = None, load: Any = None, **cards: dict[str, Any]) -> None:
        self.workers = ScriptedWorkers(script)
        made = [card(expert_id, **cards.get(expert_id, {})) for expert_id in script]
        self.directory = FakeDirectory(made, strategies=(HEDGED, PANEL))
        self.sink = KeptTraces()
        routers = {"skills": OneOf(), "explicit": OneOf(name="explicit")}
        self.orchestrator = Orchestrator(
            directory=self.directory, routers=routers, workers=self.workers, sinks=[self.sink], limits=limits, load=load
        )

    async def text(self, model: str = "consilium/hedged", *, stream: bool = False, **changes: Any) -> str:
        if not stream:
            return (await self.orchestrator.run(ask(model, **changes))).choices[0].text
        return "".join((await collect(await self.orchestrator.open_stream(ask(model, stream=True, **changes))))[0])

    @property
    def trace(self) -> Trace:
        return self.sink.traces[-1]

    def calls(self) -> list[tuple[str, str]]:
        return [(call.expert_id, call.status) for call in self.trace.calls]


async def until_called(world: World, *expert_ids: str) -> None:
    for expert_id in expert_ids:
        await world.workers.until_started(expert_id)


both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@both_ways
async def test_the_next_best_answers_where_the_chosen_one_is_silent(stream: bool) -> None:
    world = World({"a": Stalls(), "b": "from b", "c": "from c"})

    assert await world.text(stream=stream) == "from b"
    assert sorted(world.calls()) == [("a", "cancelled"), ("b", "ok")]
    assert world.workers.cancelled == ["a"]
    assert world.trace.answered_by == "b"
    assert world.trace.num_calls == 2
    assert world.trace.decision is not None
    assert world.trace.decision.selected == ("b",)
    told = "a had said nothing for 0.01 s, so the next best was asked as well, b, which answered first"
    assert world.trace.aggregator_reason == told
    assert world.trace.decision.reason.endswith(f"Note: {told}.")


@both_ways
async def test_the_chosen_one_may_still_be_first(stream: bool) -> None:
    world = World({"a": Stalls(then=Says("from a")), "b": Stalls()})
    asked = asyncio.create_task(world.text(stream=stream))
    await until_called(world, "a", "b")
    world.workers.release("a")

    assert await asked == "from a"
    assert sorted(world.calls()) == [("a", "ok"), ("b", "cancelled")]
    assert world.trace.decision is not None
    assert world.trace.decision.selected == ("a",)
    assert world.trace.aggregator_reason == "one expert was asked"


@both_ways
async def test_who_answers_in_time_is_not_hedged(stream: bool) -> None:
    world = World({"a": "from a", "b": "from b"})

    assert await world.text(stream=stream) == "from a"
    assert world.workers.called() == ["a"]


@both_ways
async def test_one_that_fails_after_the_second_was_asked_is_waited_for_no_longer(stream: bool) -> None:
    world = World({"a": Stalls(then=Fails(ExpertUnreachable("gone"))), "b": Stalls(then=Says("from b"))})
    asked = asyncio.create_task(world.text(stream=stream))
    await until_called(world, "a", "b")
    world.workers.release("a")
    world.workers.release("b")

    assert await asked == "from b"
    assert sorted(world.calls()) == [("a", "error"), ("b", "ok")]


@both_ways
async def test_where_both_fail_the_next_best_stands_in(stream: bool) -> None:
    gone = Stalls(then=Fails(ExpertUnreachable("gone")))
    world = World({"a": gone, "b": gone, "c": "from c"})
    asked = asyncio.create_task(world.text(stream=stream))
    await until_called(world, "a", "b")
    world.workers.release("a")
    world.workers.release("b")

    assert await asked == "from c"
    assert world.trace.num_calls == 3
    assert world.trace.decision is not None
    assert world.trace.decision.reason.endswith("Note: a, b failed, so the next best was asked, c.")
    assert world.trace.aggregator_reason == "a, b failed, so the next best was asked, c"


@both_ways
async def test_where_nobody_is_left_both_are_named(stream: bool) -> None:
    gone = Stalls(then=Fails(ExpertUnreachable("gone")))
    world = World({"a": gone, "b": gone})
    asked = asyncio.create_task(world.text(stream=stream))
    await until_called(world, "a", "b")
    world.workers.release("a")
    world.workers.release("b")

    with pytest.raises(AllExpertsFailed) as caught:
        await asked
    assert {failure.expert_id for failure in caught.value.failures} == {"a", "b"}


async def test_a_stream_that_breaks_after_it_was_heard_is_no_one_else_s() -> None:
    world = World({"a": Stalls(), "b": Fails(ExpertProtocolError("broke off"), pieces=("from ",)), "c": "from c"})

    with pytest.raises(AllExpertsFailed, match="broke off"):
        await world.text(stream=True)
    assert "c" not in world.workers.called()


@both_ways
async def test_a_caller_who_leaves_ends_both(stream: bool) -> None:
    world = World({"a": Stalls(), "b": Stalls()})
    asked = asyncio.create_task(world.text(stream=stream))
    await until_called(world, "a", "b")
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await world.workers.until_idle()

    assert sorted(world.workers.cancelled) == ["a", "b"]
    assert world.trace.status == "cancelled"


NOT_MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "a panel": ("consilium/panel", {}),
    "one call allowed": ("consilium/hedged", {"options": RequestOptions(max_calls=1)}),
    "an answer that is stored": ("consilium/hedged", {"params": {"store": True}}),
    "by name": ("a", {}),
    "a budget that the first answer may use up": ("consilium/hedged", {"options": RequestOptions(budget=Budget(max_tokens=300))}),
}


@pytest.mark.parametrize("why", NOT_MADE)
async def test_no_second_call_is_made_for(why: str) -> None:
    model, changes = NOT_MADE[why]
    world = World({"a": Stalls(then=Says("from a")), "b": Stalls(then=Says("from b")), "c": "from c"})
    asked = asyncio.create_task(world.text(model, **changes))
    await until_called(world, "a")
    done, _ = await asyncio.wait({asked}, timeout=10 * SOON_S)  # no time limit: the hedge would be made within it
    assert not done
    called = list(world.workers.called())
    world.workers.release("a")
    world.workers.release("b")
    await asked

    assert called == (["a", "b"] if model == "consilium/panel" else ["a"])


@pytest.mark.parametrize("why", ["unhealthy", "on trial", "busy", "managed", "served by the fleet"])
async def test_nobody_is_asked_as_well_who_is(why: str) -> None:
    """Then the one behind it is."""
    managed = {"backend": Backend.VLLM} if why == "managed" else {}
    loads = {"busy": Busy("b"), "served by the fleet": Busy(managed=("b",))}
    world = World({"a": Stalls(), "b": "from b", "c": "from c"}, load=loads.get(why), b=managed)
    if why in ("unhealthy", "on trial"):
        # After the routing: the router does not leave it out.
        router: Any = world.orchestrator._preparation._routers["skills"]
        route = router.route

        async def then_sick(*given: Any) -> Any:
            decision = await route(*given)
            world.directory.health["b"] = HealthState.OPEN if why == "unhealthy" else HealthState.HALF_OPEN
            return decision

        router.route = then_sick

    assert await world.text() == "from c"
    assert world.workers.called() == ["a", "c"]


async def test_second_calls_are_a_share_of_the_requests() -> None:
    """Where everybody is slow, asking twice would make all slower."""
    world = World({"a": Stalls(then=Says("from a")), "b": "from b"}, limits=Limits(hedge_share=0.5, hedge_burst=1.0))
    texts = []
    for _ in range(3):
        asked = asyncio.create_task(world.text())
        done, _ = await asyncio.wait({asked}, timeout=20 * SOON_S)
        if not done:
            world.workers.release("a")
            await asked
            world.workers._gates.clear()
        texts.append(asked.result())

    assert texts == ["from b", "from a", "from b"]


@both_ways
async def test_the_second_answer_is_bounded_by_what_the_first_may_leave_of_the_budget(stream: bool) -> None:
    """80 tokens: twice a prompt of a few, 30 for the first answer, and the rest for the second."""
    world = World({"a": Stalls(), "b": "from b"}, b={"sampling": {"max_tokens": 1000}}, a={"sampling": {"max_tokens": 30}})

    assert await world.text(stream=stream, options=RequestOptions(budget=Budget(max_tokens=80))) == "from b"
    first, second = world.workers.calls
    assert first.params["max_tokens"] == 30
    assert 16 <= second.params["max_tokens"] < 50


@both_ways
async def test_attempts_at_the_first_leave_the_second_no_call(stream: bool) -> None:
    """Two calls are allowed; the silent expert's second attempt has taken the other."""

    def tries_again(call: ExpertCall) -> Stalls:
        assert call.again is not None
        assert call.again()
        return Stalls(then=Says("from a"))

    world = World({"a": tries_again, "b": Stalls()})
    asked = asyncio.create_task(world.text(stream=stream, options=RequestOptions(max_calls=2)))
    await until_called(world, "a")
    done, _ = await asyncio.wait({asked}, timeout=10 * SOON_S)  # no time limit: the hedge would be made within it
    assert not done
    world.workers.release("a")

    assert await asked == "from a"
    assert world.workers.called() == ["a"]


@both_ways
async def test_a_card_has_the_same_expert_asked_again(stream: bool) -> None:
    """For an address with several servers behind it."""
    several = {"backend": Backend.OPENAI, "base_url": "http://127.0.0.1:9/v1", "hedge_after_s": SOON_S}
    world = World({"a": [Stalls(), "from a's other server"], "b": "from b"}, a=several)

    assert await world.text("a", stream=stream) == "from a's other server"
    assert sorted(world.calls()) == [("a", "cancelled"), ("a", "ok")]
    assert world.trace.aggregator_reason == "a had said nothing for 0.01 s, so it was asked a second time, and answered"
