"""Requests for one expert by its id: how they are routed is found out once, what stands in their way is looked at each time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.access import Access
from domain.chat import ChatRequest, RequestOptions
from domain.errors import ContextTooLong, ModelNotFound, NoEligibleExpert
from domain.experts import HealthState
from domain.routing import RoutingDecision
from orchestrator.limits import Limits
from orchestrator.preparation import Preparation, Prepared
from orchestrator.recorder import TraceRecorder
from routers.explicit import ExplicitRouter
from tests.fakes.directory import FakeDirectory, card


class Counted(ExplicitRouter):
    """Counts how often it is asked."""

    num_asked = 0

    async def route(self, query, snapshot) -> RoutingDecision:
        self.num_asked += 1
        return await super().route(query, snapshot)


class Rig:
    def __init__(self) -> None:
        self.directory = FakeDirectory((card("a", context_length=20, chars_per_token=1.0), card("b", labels=frozenset({"secret"}))))
        self.router = Counted()
        self.preparation = Preparation(directory=self.directory, routers={"explicit": self.router}, limits=Limits())

    async def prepared(self, request: ChatRequest) -> tuple[Prepared, TraceRecorder]:
        recorder = TraceRecorder(request, (), keep_text=False)
        return await self.preparation.prepare(request, recorder), recorder


def ask(model: str = "a", text: str = "1 + 1?", **changes: object) -> ChatRequest:
    return ChatRequest(id="r", model=model, messages=({"role": "user", "content": text},), **changes)  # type: ignore[arg-type]


async def test_the_second_request_is_prepared_as_the_first_was_without_routing_it_again() -> None:
    rig = Rig()

    first, told_first = await rig.prepared(ask())
    second, told_second = await rig.prepared(ask(text="2 + 2?"))

    assert rig.router.num_asked == 1
    assert second.context.decision == first.context.decision
    assert told_second.decision == told_first.decision
    assert told_second.strategy is None
    assert second.mode.call.expert.id == "a"  # type: ignore[attr-defined]
    assert second.mode.call.messages[0]["content"] == "2 + 2?"  # type: ignore[attr-defined]
    assert told_second.finish().timings.routed is not None


async def test_what_stands_in_the_way_now_is_told_although_it_did_not_before() -> None:
    rig = Rig()
    await rig.prepared(ask())

    with pytest.raises(ContextTooLong):
        await rig.prepared(ask(text="x" * 30))
    rig.directory.health["a"] = HealthState.OPEN
    with pytest.raises(NoEligibleExpert, match="unhealthy"):
        await rig.prepared(ask())


async def test_options_are_looked_at_each_time() -> None:
    rig = Rig()
    await rig.prepared(ask())

    prepared, _ = await rig.prepared(ask(options=RequestOptions(timeout_s=3.0)))

    assert rig.router.num_asked == 2
    assert prepared.deadline.remaining_s <= 3.0


async def test_what_one_caller_asked_is_not_found_by_who_may_not_see_it() -> None:
    rig = Rig()
    await rig.prepared(ask("b", access=Access(labels=frozenset({"secret"}))))

    with pytest.raises(ModelNotFound):
        await rig.prepared(ask("b"))


async def test_a_changed_registry_is_routed_anew() -> None:
    rig = Rig()
    await rig.prepared(ask())

    rig.directory._snapshot = replace(rig.directory.snapshot(), version=2, experts={"a": card("a", context_length=4, chars_per_token=1.0)})

    with pytest.raises(ContextTooLong):
        await rig.prepared(ask())
    prepared, _ = await rig.prepared(ask(text="?"))
    assert rig.router.num_asked == 2
    assert prepared.mode.call.expert.context_length == 4  # type: ignore[attr-defined]
