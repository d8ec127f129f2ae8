"""The request's path: prepare (resolve, filter, route, plan), dispatch, aggregate, trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from domain.chat import ChatRequest
from domain.plan import CallRole, Candidate, ExpertFailure
from domain.routing import RoutingDecision
from orchestrator.aggregation.base import Chosen, Synthesis
from orchestrator.aggregation.fallback import instead_of, is_answer
from orchestrator.answer import Answer
from orchestrator.dispatch import candidates_of, dispatch, failures_of
from orchestrator.failures import error_for
from orchestrator.guard import GuardedWorkers
from orchestrator.limits import Limits
from orchestrator.planner import aggregator_call
from orchestrator.ports import Directory, Router, TraceSink, Workers
from orchestrator.preparation import Preparation, Prepared, settle, stand_in, why_single
from orchestrator.recorder import TraceRecorder
from orchestrator.stream import AnswerStream, stream_events


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
    ) -> None:
        self._limits = limits or Limits()
        self._workers, self._sinks, self._keep_text = GuardedWorkers(workers, directory), tuple(sinks), keep_text
        self._preparation = Preparation(directory=directory, routers=routers, limits=self._limits)

    async def decide(self, request: ChatRequest) -> RoutingDecision:
        """The routing decision for *request*; runs no candidate and leaves no trace."""
        _, _, decision, _ = await self._preparation.decide(request, TraceRecorder(request, (), keep_text=False))
        return decision

    async def run(self, request: ChatRequest) -> Answer:
        """The whole answer. Raises ``RequestError`` or ``ServiceError``; cancelling it cancels every expert call."""
        recorder = TraceRecorder(request, self._sinks, keep_text=self._keep_text)
        try:
            prepared = await self._preparation.prepare(request, recorder)
            prepared, candidates = await self._candidates(prepared, recorder)
            final = await self._aggregate(prepared, candidates, recorder)
            recorder.wrote(final.text)
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
            stream.start(stream_events(prepared, recorder, self._workers, on_progress=stream.progress, on_stand_in=stream.instead))
        except BaseException as error:
            recorder.finish(error)
            raise
        await stream.hold_for_first_event()
        return stream

    async def _candidates(self, prepared: Prepared, recorder: TraceRecorder) -> tuple[Prepared, list[Candidate]]:
        """The answers, and what was carried out: *prepared*, or the same with a stand-in where nobody could be called."""
        failures: list[ExpertFailure] = []
        while True:
            with recorder.timing("experts"):
                outcomes = await dispatch(
                    prepared.plan.calls,
                    self._workers,
                    on_outcome=lambda outcome: recorder.call(outcome, CallRole.CANDIDATE),
                    on_cancelled=recorder.cancelled,
                )
            if candidates := candidates_of(outcomes):
                return prepared, candidates
            failures += failures_of(outcomes)
            instead = stand_in(prepared, failures)
            if instead is None:
                raise error_for(failures, prepared.plan.deadline)
            prepared, recorder.decision = instead, instead.context.decision

    async def _aggregate(self, prepared: Prepared, candidates: list[Candidate], recorder: TraceRecorder) -> Candidate:
        """The candidate that is the answer: the only one, the chosen one, or what the aggregator wrote."""
        match settle(prepared, candidates):
            case None:
                recorder.aggregated("single", why_single(len(prepared.plan.calls)))
                return candidates[0]
            case Chosen(candidate=chosen, why=why, by=name):
                recorder.aggregated(name, why)
                return chosen
            case Synthesis(expert=expert, messages=messages, why=why):
                recorder.aggregated(f"{prepared.aggregator.name}:{expert.id}", why)
                call = aggregator_call(prepared.request, expert, messages, prepared.plan.deadline)
                with recorder.timing("aggregate"):
                    (outcome,) = await dispatch(
                        [call],
                        self._workers,
                        on_outcome=lambda outcome: recorder.call(outcome, CallRole.AGGREGATOR),
                        on_cancelled=recorder.cancelled,
                    )
                if isinstance(outcome, Candidate) and is_answer(outcome):
                    return outcome
                chosen, why = instead_of(outcome, candidates)
                recorder.fell_back(why)
                return chosen
