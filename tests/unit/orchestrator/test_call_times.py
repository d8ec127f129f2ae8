"""When calls began, when their first token came, and which span they are: what a trace tells of each."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from domain.chat import ChatRequest
from domain.plan import CallRole
from domain.trace import CallRecord, Trace
from domain.trace_context import TraceContext
from orchestrator.limits import Limits
from orchestrator.pipeline import Orchestrator
from routers.catalogue import RouterCatalogue
from tests.fakes.services import FakeDirectory, FixedRouter, KeptTraces, card, registry
from tests.fakes.workers import ScriptedWorkers, Stalls

CONTEXT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=False, state="a=b")


class Rig:
    """The pipeline with scripted experts; ``trace`` is that of the last request."""

    def __init__(self, script: dict[str, Any]) -> None:
        self.workers, self._kept = ScriptedWorkers(script), KeptTraces()
        self.orchestrator = Orchestrator(
            directory=FakeDirectory(registry(*(card(name) for name in script))),
            routers=RouterCatalogue([FixedRouter(), FixedRouter("explicit")]),
            workers=self.workers,
            sinks=[self._kept],
            limits=Limits(),
        )

    @property
    def trace(self) -> Trace:
        return self._kept.traces[-1]

    def calls(self) -> dict[str, CallRecord]:
        return {call.expert_id: call for call in self.trace.calls}


def request(model: str, *, context: TraceContext | None = CONTEXT, **changes: Any) -> ChatRequest:
    return ChatRequest("r", model, ({"role": "user", "content": "x"},), context=context, **changes)


def in_order(trace: Trace) -> None:
    """Every call lies within the request, behind its routing."""
    assert trace.timings.routed is not None
    assert 0 <= trace.timings.routed <= trace.timings.total
    for call in trace.calls:
        assert call.started_ms is not None
        assert trace.timings.routed <= call.started_ms <= call.started_ms + call.latency_ms <= trace.timings.total


async def test_every_call_of_a_panel_has_a_time_and_a_span_of_its_own() -> None:
    rig = Rig({"a": "1", "b": "2", "judge": "3"})
    await rig.orchestrator.run(request("consilium/council"))

    told = {call.expert.id: call.context for call in rig.workers.calls}
    records = rig.calls()
    assert rig.trace.context == CONTEXT
    assert {name: context.span_id if context else None for name, context in told.items()} == {
        name: record.span_id for name, record in records.items()
    }
    assert len({record.span_id for record in records.values()}) == 3
    assert {(c.trace_id, c.parent_id, c.sampled, c.state) for c in told.values() if c} == {
        (CONTEXT.trace_id, CONTEXT.span_id, False, "a=b")
    }
    reader = records["judge"]
    assert reader.role is CallRole.AGGREGATOR
    assert reader.started_ms is not None
    assert all((record.started_ms or 0.0) <= reader.started_ms for record in records.values())


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_lies_within_its_request(stream: bool) -> None:
    rig = Rig({"a": Stalls()})
    asked = request("a", stream=stream)

    async def answer() -> None:
        if not stream:
            await rig.orchestrator.run(asked)
            return
        opened = await rig.orchestrator.open_stream(asked)
        async for _ in opened:
            pass
        await opened.aclose()

    running = asyncio.create_task(answer())
    await rig.workers.until_started("a")
    rig.workers.release("a")
    await running

    record = rig.calls()["a"]
    assert record.span_id is not None
    assert (record.first_token_ms is not None) is stream
    if stream:  # the scripted latency of a whole answer is none that was measured
        in_order(rig.trace)
        assert 0 <= (record.first_token_ms or 0.0) <= record.latency_ms


async def test_a_call_that_was_given_up_is_told_with_its_span() -> None:
    rig = Rig({"a": Stalls()})
    running = asyncio.create_task(rig.orchestrator.run(request("a")))
    await rig.workers.until_started("a")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    record = rig.calls()["a"]
    assert (record.status, record.span_id) == ("cancelled", rig.workers.calls[0].context.span_id if rig.workers.calls[0].context else None)
    in_order(rig.trace)


async def test_without_a_context_no_call_has_one() -> None:
    rig = Rig({"a": "1"})
    await rig.orchestrator.run(request("a", context=None))

    assert rig.workers.calls[0].context is None
    assert (rig.trace.context, rig.calls()["a"].span_id) == (None, None)


@pytest.mark.parametrize(("error", "code"), [("expert_timeout: no answer: at all", "expert_timeout"), (None, None)])
def test_an_errors_code_is_what_stands_before_its_words(error: str | None, code: str | None) -> None:
    assert CallRecord("a", CallRole.CANDIDATE, "error", 1.0, error=error).error_code == code
