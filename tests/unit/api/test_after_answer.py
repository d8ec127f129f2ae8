"""What people look at is told when the answer is on its way, in order, whichever sink fails."""

from __future__ import annotations

import asyncio

import pytest

from api.after_answer import AfterAnswer
from domain.chat import ChatRequest
from domain.trace import Trace
from orchestrator.recorder import TraceRecorder


class Sink:
    def __init__(self, *, fails_at: str | None = None) -> None:
        self.heard: list[str] = []
        self._fails_at = fails_at

    def emit(self, trace: Trace) -> None:
        if trace.request_id == self._fails_at:
            raise ValueError("full")
        self.heard.append(trace.request_id)


def trace(request_id: str) -> Trace:
    request = ChatRequest(request_id, "auto", ({"role": "user", "content": "?"},))
    return TraceRecorder(request, (), keep_text=False).finish()


async def test_sinks_hear_of_it_in_the_next_turn_of_the_loop_and_in_order() -> None:
    first, second = Sink(), Sink()
    later = AfterAnswer([first, second])

    later.emit(trace("a"))
    later.emit(trace("b"))

    assert first.heard == second.heard == []
    await asyncio.sleep(0)
    assert first.heard == second.heard == ["a", "b"]
    later.emit(trace("c"))
    await asyncio.sleep(0)
    assert first.heard == ["a", "b", "c"]


async def test_a_sink_that_fails_keeps_nothing_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    broken, sound = Sink(fails_at="a"), Sink()
    later = AfterAnswer([broken, sound])

    later.emit(trace("a"))
    later.emit(trace("b"))
    await asyncio.sleep(0)

    assert sound.heard == ["a", "b"]
    assert broken.heard == ["b"]
    assert "request a" in caplog.text


def test_without_a_loop_it_is_told_at_once() -> None:
    sink = Sink()

    AfterAnswer([sink]).emit(trace("a"))

    assert sink.heard == ["a"]
