"""Streams: real tokens of the last step, errors before the first byte, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest

from domain.chat import Chunk
from domain.errors import AllExpertsFailed, ExpertProtocolError, ExpertUnreachable
from domain.plan import ExpertCall
from orchestrator.answer import Progress
from orchestrator.stream import _MAX_AHEAD, AnswerStream
from tests.fakes.virtual_time import VirtualTimeLoop
from tests.fakes.workers import Fails, Says, Stalls
from tests.unit.orchestrator.test_pipeline import Setup, ask


async def collect(stream: AnswerStream) -> tuple[list[str], list[str]]:
    """``(text pieces, progress texts)`` up to the end."""
    pieces, progress = [], []
    async for event in stream:
        if isinstance(event, Progress):
            progress.append(event.text)
        else:
            pieces += [str(c.delta["content"]) for c in event.choices if c.delta.get("content")]
    return pieces, progress


async def test_a_single_expert_streams_straight_through() -> None:
    setup = Setup({"a": Says("one two three")}, "a")

    stream = await setup.orchestrator.open_stream(ask(stream=True))
    pieces, _ = await collect(stream)

    assert pieces == ["one ", "two ", "three"]
    assert stream.trace.usage.total_tokens == 8
    assert stream.trace.answer == "one two three"
    assert setup.workers.streamed == ["a"]


async def test_only_the_aggregator_of_a_panel_streams() -> None:
    setup = Setup({"a": "2", "b": "3", "fuser": Says("it is two")}, "a", "b")

    stream = await setup.orchestrator.open_stream(ask("consilium/panel", stream=True))
    pieces, _ = await collect(stream)

    assert pieces == ["it ", "is ", "two"]
    assert setup.workers.streamed == ["fuser"]
    assert stream.trace.aggregator == "fuse:fuser"
    assert stream.trace.usage.total_tokens == 3 * 8
    assert stream.announced_aggregator == "fuse:fuser"


def tells(text: str) -> Callable[[ExpertCall], Says]:
    """An expert that has to be waited for, and says so."""

    def answer(call: ExpertCall) -> Says:
        assert call.on_progress is not None
        call.on_progress(f"{call.expert.id}: loading")
        return Says(text)

    return answer


async def test_what_candidates_and_aggregator_tell_while_they_are_waited_for_is_progress() -> None:
    setup = Setup({"a": tells("2"), "b": tells("3"), "fuser": tells("two")}, "a", "b")

    _, progress = await collect(await setup.orchestrator.open_stream(ask("consilium/panel", stream=True)))

    assert {"a: loading", "b: loading", "fuser: loading"} <= set(progress)


async def test_what_a_single_expert_tells_while_it_is_waited_for_is_progress() -> None:
    waiting: list[ExpertCall] = []

    def stalls(call: ExpertCall) -> Stalls:
        waiting.append(call)
        return Stalls(Says("two"))

    setup = Setup({"a": stalls}, "a")
    opening = asyncio.create_task(setup.orchestrator.open_stream(ask(stream=True)))
    await setup.workers.until_started("a")
    assert waiting[0].on_progress is not None
    setup.workers.release("a")
    stream = await opening
    waiting[0].on_progress("a: loading")
    told = [event async for event in stream]  # what is there already goes first

    assert [event for event in told if isinstance(event, Progress)] == [Progress("a: loading")]


async def test_a_failure_before_the_first_token_is_raised_at_once() -> None:
    setup = Setup({"a": Fails(ExpertUnreachable("refused"))}, "a")

    with pytest.raises(AllExpertsFailed, match="refused"):
        await setup.orchestrator.open_stream(ask(stream=True))

    assert setup.trace.status == "error"


async def test_a_panel_that_fails_early_is_raised_at_once() -> None:
    setup = Setup({"a": Fails(ExpertUnreachable("x")), "b": Fails(ExpertProtocolError("y"))}, "a", "b")

    with pytest.raises(AllExpertsFailed):
        await setup.orchestrator.open_stream(ask("consilium/panel", stream=True))


async def test_half_a_stream_ends_in_an_error_after_what_was_sent() -> None:
    setup = Setup({"a": Fails(ExpertProtocolError("broke off"), pieces=("on", "e"))}, "a")
    stream = await setup.orchestrator.open_stream(ask(stream=True))
    events = [await anext(stream), await anext(stream)]

    with pytest.raises(AllExpertsFailed, match="broke off"):
        await anext(stream)

    assert [event.choices[0].delta["content"] for event in events if isinstance(event, Chunk)] == ["on", "e"]
    assert stream.trace.status == "error"


async def test_an_aggregator_that_fails_before_its_first_token_is_replaced_by_the_best_candidate() -> None:
    setup = Setup({"a": "2", "b": "3", "fuser": Fails(ExpertUnreachable("gone"))}, "a", "b")

    stream = await setup.orchestrator.open_stream(ask("consilium/panel", stream=True))
    pieces, _ = await collect(stream)

    assert pieces == ["2"]
    assert stream.trace.aggregator == "fuse:fuser (fallback)"


async def test_a_slow_panel_tells_its_progress() -> None:
    setup = Setup({"a": "2", "b": Stalls(then=Says("3")), "fuser": "two"}, "a", "b")
    opening = asyncio.create_task(setup.orchestrator.open_stream(ask("consilium/panel", stream=True)))
    stream = await opening
    first = await anext(stream)
    setup.workers.release("b")

    pieces, _ = await collect(stream)

    assert first == Progress("a answered")
    assert pieces == ["two"]


async def test_closing_a_stream_cancels_the_expert() -> None:
    setup = Setup({"a": Stalls(pieces=("on",))}, "a")
    stream = await setup.orchestrator.open_stream(ask(stream=True))
    assert isinstance(await anext(stream), Chunk)

    await stream.aclose()

    assert setup.workers.cancelled == ["a"]
    assert stream.trace.status == "cancelled"
    assert [c.status for c in stream.trace.calls] == ["cancelled"]


async def test_closing_a_panel_cancels_all_its_candidates() -> None:
    setup = Setup({"a": Stalls(), "b": Stalls()}, "a", "b")
    opening = asyncio.create_task(setup.orchestrator.open_stream(ask("consilium/panel", stream=True)))
    await setup.workers.until_started("b")
    stream = await opening

    await stream.aclose()

    assert sorted(setup.workers.cancelled) == ["a", "b"]
    assert setup.trace.status == "cancelled"


async def test_a_caller_that_is_cancelled_while_opening_leaves_nothing_running() -> None:
    setup = Setup({"a": Stalls()}, "a")
    opening = asyncio.create_task(setup.orchestrator.open_stream(ask(stream=True)))
    await setup.workers.until_started("a")

    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    assert setup.workers.cancelled == ["a"]
    assert setup.trace.status == "cancelled"


async def test_closing_after_the_end_changes_nothing() -> None:
    setup = Setup({"a": "2"}, "a")
    stream = await setup.orchestrator.open_stream(ask(stream=True))
    await collect(stream)

    await stream.aclose()

    assert setup.trace.status == "ok"


async def test_an_expert_that_pauses_between_tokens_is_told_to_be_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.stream.KEEP_ALIVE_S", 0.01)
    setup = Setup({"a": Stalls(then=Says("late"), pieces=("so ",))}, "a")
    stream = await setup.orchestrator.open_stream(ask(stream=True))
    first, pause = await anext(stream), await anext(stream)
    setup.workers.release("a")

    pieces, _ = await collect(stream)

    assert isinstance(first, Chunk)
    assert pause == Progress("working")
    assert pieces == ["late"]
    assert stream.trace.answer == "so late"


async def test_closing_a_stream_during_a_pause_cancels_the_expert() -> None:
    setup = Setup({"a": Stalls(pieces=("on",))}, "a")
    stream = await setup.orchestrator.open_stream(ask(stream=True))
    await anext(stream)
    reading = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    await stream.aclose()

    assert setup.workers.cancelled == ["a"]
    assert stream.trace.status == "cancelled"


@pytest.mark.parametrize(("model", "waits_for"), [("auto", "a"), ("consilium/vote", "a"), ("consilium/panel", "fuser")])
def test_no_silence_is_longer_than_five_seconds(model: str, waits_for: str) -> None:
    """From the request on, however long the expert, the panel or the aggregator takes for its first token."""

    async def moments() -> list[float]:
        loop = asyncio.get_running_loop()
        script: dict[str, object] = {"a": "2", "b": "3", "fuser": "2"}
        setup = Setup({**script, waits_for: Stalls()}, *(("a",) if model == "auto" else ("a", "b")))
        told = [loop.time()]
        stream = await setup.orchestrator.open_stream(ask(model, stream=True))
        told.append(loop.time())  # the headers
        while told[-1] - told[0] < 30:
            assert isinstance(await anext(stream), Progress)
            told.append(loop.time())
        await stream.aclose()
        return told

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        told = runner.run(moments())

    assert max(later - earlier for earlier, later in pairwise(told)) < 5


async def test_an_expert_is_read_only_so_far_ahead_of_the_reader() -> None:
    """What a reader that stopped reading holds in memory is bounded."""
    words = " ".join(str(number) for number in range(1000))
    setup = Setup({"a": Says(words)}, "a")
    stream = await setup.orchestrator.open_stream(ask(stream=True))
    for _ in range(2000):
        await asyncio.sleep(0)

    assert len(stream._chunks) == _MAX_AHEAD
    pieces, _ = await collect(stream)
    assert "".join(pieces) == words


async def test_a_reader_that_leaves_before_the_end_was_not_answered() -> None:
    """Whatever has been taken from the expert meanwhile: the trace tells what the reader got."""
    setup = Setup({"a": Says("one two three")}, "a")
    stream = await setup.orchestrator.open_stream(ask(stream=True))
    await anext(stream)
    await asyncio.sleep(0.01)
    await stream.aclose()

    assert (stream.trace.status, stream.trace.answer) == ("cancelled", "one ")
