"""What a request has used is settled when its answer is on its way, and before anything else is taken."""

from __future__ import annotations

import asyncio

import pytest

from domain.chat import ChatRequest, Usage
from domain.keys import ApiKey, KeyLimits
from domain.plan import CallRole
from domain.spending import Spent
from domain.trace import CallRecord, Trace
from orchestrator.admission.gate import Gate, Grant, Refused
from orchestrator.admission.in_process import InProcessCounters
from orchestrator.recorder import TraceRecorder
from tests.fakes.limits import MemoryLedger

KEY = ApiKey("team", limits=KeyLimits(tokens_per_minute=1000, max_concurrency=1))


def trace(num_tokens: int) -> Trace:
    recorder = TraceRecorder(ChatRequest("r", "a", ({"role": "user", "content": "?"},)), (), keep_text=False)
    recorder._calls.append(CallRecord("a", CallRole.CANDIDATE, "ok", 1.0, Usage(0, num_tokens)))
    return recorder.finish()


async def taken(gate: Gate, num_tokens: int) -> Grant:
    grant = await gate.take(KEY, Spent(num_tokens))
    assert grant is not None
    return grant


async def test_the_next_request_finds_the_last_one_settled_even_in_the_same_turn_of_the_loop() -> None:
    gate = Gate(InProcessCounters(MemoryLedger()), MemoryLedger())

    for _ in range(3):
        (await taken(gate, 900)).settled(trace(10))

    assert dict((await taken(gate, 0)).headers)[b"x-ratelimit-remaining-tokens"] == b"970"


async def test_it_is_settled_by_itself_in_the_next_turn() -> None:
    counters = InProcessCounters(MemoryLedger())
    gate = Gate(counters, MemoryLedger())

    (await taken(gate, 900)).settled(trace(10))

    assert counters._use("team").num_running == 1
    await asyncio.sleep(0)
    assert counters._use("team").num_running == 0


async def test_what_still_runs_is_not_settled_with_what_has_ended() -> None:
    gate = Gate(InProcessCounters(MemoryLedger()), MemoryLedger())
    running = await taken(gate, 10)

    with pytest.raises(Refused, match="1 request"):
        await gate.take(KEY, Spent(10))
    running.close()
    await taken(gate, 10)


def test_without_a_loop_it_is_settled_at_once() -> None:
    counters = InProcessCounters(MemoryLedger())
    gate = Gate(counters, MemoryLedger())
    grant = asyncio.run(taken(gate, 900))

    grant.settled(trace(10))

    assert counters._use("team").num_running == 0
