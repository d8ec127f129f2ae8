"""The shared fake keeps its promises; everything that is tested with it leans on them."""

from __future__ import annotations

import asyncio

import pytest

from domain.deadline import Deadline
from domain.errors import ExpertTimeout
from domain.experts import Backend, ExpertCard
from domain.plan import ExpertCall
from orchestrator.ports import Workers
from tests.fakes.workers import Fails, Says, ScriptedWorkers, Stalls


def call_to(expert_id: str) -> ExpertCall:
    card = ExpertCard(id=expert_id, backend=Backend.OPENAI, model="m")
    return ExpertCall(card, ({"role": "user", "content": "q"},), {}, Deadline.after(5), "r")


async def test_a_series_answers_step_by_step_and_then_refuses() -> None:
    workers: Workers = (scripted := ScriptedWorkers({"a": ["1", Fails(ExpertTimeout("slow")), lambda call: call.request_id]}))

    first = await workers.complete(call_to("a"))
    with pytest.raises(ExpertTimeout):
        await workers.complete(call_to("a"))
    third = await workers.complete(call_to("a"))

    assert (first.text, third.text) == ("1", "r")
    with pytest.raises(AssertionError, match="used up"):
        await workers.complete(call_to("a"))
    assert scripted.called() == ["a"] * 4


async def test_an_expert_outside_the_script_is_an_error() -> None:
    workers = ScriptedWorkers({"a": "1"})

    with pytest.raises(AssertionError, match="no script names it"):
        await workers.complete(call_to("b"))

    assert workers.unexpected == ["b"]


async def test_streamed_pieces_join_to_the_text() -> None:
    workers = ScriptedWorkers({"a": Says("one two  three", reasoning="hm")})

    chunks = [chunk async for chunk in workers.stream(call_to("a"))]

    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(d.get("content", "") for d in deltas) == "one two  three"
    assert deltas[0] == {"reasoning_content": "hm"}
    assert chunks[-1].usage is not None


async def test_a_stalled_call_goes_on_when_released_and_shows_when_cancelled() -> None:
    workers = ScriptedWorkers({"a": Stalls(then=Says("done")), "b": Stalls()})
    a, b = asyncio.create_task(workers.complete(call_to("a"))), asyncio.create_task(workers.complete(call_to("b")))
    await workers.until_started("a")
    await workers.until_started("b")
    b.cancel()
    workers.release("a")

    assert (await a).text == "done"
    with pytest.raises(asyncio.CancelledError):
        await b
    await workers.until_idle()
    assert (workers.finished, workers.cancelled) == (["a"], ["b"])


async def test_a_stream_that_breaks_sends_its_pieces_first() -> None:
    workers = ScriptedWorkers({"a": Fails(ExpertTimeout("gone"), pieces=("x", "y"))})
    stream = workers.stream(call_to("a"))

    seen = [(await anext(stream)).choices[0].delta["content"] for _ in range(2)]

    assert seen == ["x", "y"]
    with pytest.raises(ExpertTimeout):
        await anext(stream)
