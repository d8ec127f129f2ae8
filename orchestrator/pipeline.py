"""The request's path: prepare (resolve, filter, route, plan), carry the mode out, trace."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from domain.chat import ChatRequest
from domain.deadline import Clock
from domain.errors import InvalidRequest
from domain.routing import RoutingDecision
from orchestrator.answer import Answer
from orchestrator.cascade.climb import Climb
from orchestrator.cascade.ladder import NEVER
from orchestrator.guard import GuardedWorkers
from orchestrator.hedging import Hedging
from orchestrator.limits import Limits
from orchestrator.modes.cascade import Cascade
from orchestrator.modes.driver import Driver
from orchestrator.ports import Directory, Load, Memory, Router, SessionHistory, TraceSink, Workers
from orchestrator.preparation import Preparation
from orchestrator.recorder import TraceRecorder
from orchestrator.stream import AnswerStream


class Orchestrator:
    """One request in, one answer out. Holds no per-request state."""

    def __init__(
        self,
        *,
        directory: Directory,
        routers: Mapping[str, Router],
        workers: Workers,
        sinks: Sequence[TraceSink] = (),
        limits: Limits | None = None,
        keep_text: bool = True,
        load: Load | None = None,
        history: SessionHistory | None = None,
        memory: Memory | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """*clock*: what deadlines are measured by."""
        self._limits = limits or Limits()
        self._workers, self._sinks, self._keep_text = GuardedWorkers(workers, directory), tuple(sinks), keep_text
        self._preparation = Preparation(
            directory=directory, routers=routers, limits=self._limits, load=load, history=history, memory=memory, clock=clock
        )
        self._hedging = Hedging(directory, load, self._limits)

    async def decide(self, request: ChatRequest, *, sinks: Sequence[TraceSink] = ()) -> RoutingDecision:
        """The routing decision for *request*; runs no candidate. Its trace, of the router's calls alone, goes to *sinks* only."""
        recorder = TraceRecorder(request, sinks, keep_text=False)
        try:
            decision = (await self._preparation.decide(request, recorder)).decision
        except BaseException as error:
            recorder.finish(error)
            raise
        recorder.finish()
        return decision

    async def run(self, request: ChatRequest) -> Answer:
        """The whole answer. Raises ``RequestError`` or ``ServiceError``; cancelling it cancels every expert call."""
        recorder = TraceRecorder(request, self._sinks, keep_text=self._keep_text)
        try:
            prepared = await self._preparation.prepare(request, recorder)
            hedge = self._hedging.of(prepared)
            final = await Driver(prepared, recorder, self._workers, choose_next=self._preparation.next_expert, hedge=hedge).answer()
            recorder.wrote(final.text)
            recorder.answered_by = final.expert_id
        except BaseException as error:
            recorder.finish(error)
            raise
        trace = recorder.finish()
        return Answer(request.id, request.model, final.choices, trace.usage, trace, final.extra)

    async def open_stream(self, request: ChatRequest) -> AnswerStream:
        """The answer as it is produced.

        Returns when the first token is there (a single expert) or when the panel is under way; what fails before that
        is raised here, so that it can still be a real HTTP error. The caller must ``aclose()`` the stream.
        """
        recorder = TraceRecorder(request, self._sinks, keep_text=self._keep_text)
        try:
            prepared = await self._preparation.prepare(request, recorder)
            stream = AnswerStream(prepared, recorder, limits=self._limits)
            driver = Driver(
                prepared,
                recorder,
                self._workers,
                choose_next=self._preparation.next_expert,
                hedge=self._hedging.of(prepared),
                on_progress=stream.progress,
                on_carried=stream.instead,
            )
            stream.start(driver.chunks())
        except BaseException as error:
            recorder.finish(error)
            raise
        await stream.hold_for_first_event()
        return stream

    async def climbed(self, request: ChatRequest) -> Climb:
        """The calls of *request*'s whole cascade, made: nobody's answer is taken before the last expert's. Leaves no trace.

        Raises ``InvalidRequest`` where the request leads to no cascade, and what ``run`` raises before any expert is called.
        """
        recorder = TraceRecorder(request, (), keep_text=False)
        mode = (await self._preparation.prepare(request, recorder)).mode
        if not isinstance(mode, Cascade):
            raise InvalidRequest(f"the model {request.model!r} leads to no cascade of two or more experts for this question", param="model")
        climb = Climb(replace(mode.ladder, rule=replace(mode.ladder.rule, threshold=NEVER)))
        await climb.to_the_end(recorder, self._workers)
        return climb
