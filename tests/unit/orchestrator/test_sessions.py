"""Which requests a session is with: those that were answered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.chat import ChatRequest, RequestOptions
from domain.errors import AllExpertsFailed, ExpertUnreachable
from orchestrator.pipeline import Orchestrator
from routers.stickiness import SessionMemory
from tests.fakes.directory import FakeDirectory
from tests.fakes.routing import skills_router, snapshot_of
from tests.fakes.workers import Fails, ScriptedWorkers

ASKED = ChatRequest("r1", "auto", ({"role": "user", "content": "Name the capital of Kenya."},), session_id="s")


async def orchestrator(sessions: SessionMemory, reply: str | Fails) -> Orchestrator:
    directory = FakeDirectory(())
    directory._snapshot = snapshot_of()
    router = await skills_router(directory.snapshot(), sessions=sessions)
    return Orchestrator(directory=directory, routers={"skills": router}, workers=ScriptedWorkers({"atlas": reply}), sinks=[sessions])


async def test_an_answer_is_remembered_and_a_decision_alone_is_not() -> None:
    sessions = SessionMemory()
    service = await orchestrator(sessions, "Nairobi")

    await service.decide(ASKED)
    decided = sessions.recall((None, "s"))
    await service.run(ASKED)

    assert (decided, sessions.recall((None, "s"))) == (None, "atlas")


async def test_a_streamed_answer_is_remembered_once_it_is_complete() -> None:
    sessions = SessionMemory()
    stream = await (await orchestrator(sessions, "Nairobi")).open_stream(ASKED)
    opened = sessions.recall((None, "s"))
    async for _ in stream:
        pass

    assert (opened, sessions.recall((None, "s"))) == (None, "atlas")


async def test_a_request_that_failed_changes_no_session() -> None:
    sessions = SessionMemory()
    service = await orchestrator(sessions, Fails(ExpertUnreachable("refused")))
    alone = replace(ASKED, options=RequestOptions(max_calls=1))  # nobody stands in
    with pytest.raises(AllExpertsFailed):
        await service.run(alone)

    assert sessions.recall((None, "s")) is None
