"""One line of a batch, handled with the very parts that a single request goes through: same routing, same calls, same answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from domain.batch import LineRoute
from domain.chat import ChatRequest
from domain.deadline import Deadline
from domain.errors import ConsiliumError, NoEligibleExpert
from domain.plan import CallRole, Candidate, ExpertCall, ExpertFailure, Outcome
from domain.routing import RoutingDecision, ScoredExpert
from orchestrator.aggregation.base import Chosen, Synthesis
from orchestrator.aggregation.fallback import instead_of, is_answer
from orchestrator.answer import Answer
from orchestrator.failures import error_for
from orchestrator.planner import aggregator_call
from orchestrator.ports import TraceSink
from orchestrator.preparation import Preparation, Prepared, settle, why_single
from orchestrator.recorder import TraceRecorder


class NothingToAggregate(Exception):
    """The candidates need no aggregator's call. Never leaves the engine."""


class Lines:
    """Holds nothing of any line."""

    def __init__(
        self, preparation: Preparation, unhurried: Preparation, sinks: Sequence[TraceSink], *, keep_text: bool, wait_s: float
    ) -> None:
        """*unhurried* prepares, with every expert taken as well, what *preparation* finds nobody for. *wait_s*: longest wait of a call for
        its expert's server, beside the time that its strategy gives it."""
        self._preparation, self._unhurried, self._sinks = preparation, unhurried, tuple(sinks)
        self._keep_text, self._wait_s = keep_text, wait_s

    async def route(self, request: ChatRequest) -> LineRoute:
        """Who answers. Raises what a single request would get before any expert is called; that is traced."""
        recorder = TraceRecorder(request, self._sinks, keep_text=self._keep_text)
        try:
            prepared = await self._prepare(request, recorder)
        except ConsiliumError as error:
            recorder.finish(error)
            raise
        decision = prepared.context.decision
        selected = tuple(call.expert.id for call in prepared.plan.calls)
        scores = {expert.expert_id: expert.score for expert in decision.considered}
        reader = prepared.aggregator.expert_for(prepared.context) if len(selected) > 1 and prepared.num_free_calls else None
        return LineRoute(
            router=decision.router,
            selected=selected,
            scores=tuple(scores.get(expert_id, 0.0) for expert_id in selected),
            aggregator=reader.id if reader else None,
            strategy=recorder.strategy,
            reason=decision.reason,
            skills=decision.skills,
            category=decision.category,
            fallback=decision.fallback,
            calls=decision.calls,
        )

    async def _prepare(self, request: ChatRequest, recorder: TraceRecorder) -> Prepared:
        try:
            return await self._preparation.prepare(request, recorder)
        except NoEligibleExpert as nobody:
            try:
                return await self._unhurried.prepare(request, recorder)
            except ConsiliumError:
                raise nobody from None

    def call(self, request: ChatRequest, route: LineRoute, position: int, earlier: Mapping[int, Outcome]) -> ExpertCall:
        """The call at *position*: a candidate's, or behind the last of them the aggregator's, which reads *earlier*.

        Raises ``RequestError`` when the registry has changed so much that it cannot be made any more, and ``NothingToAggregate``.
        """
        prepared = self._prepared(request, route)
        if position < len(route.selected):
            return prepared.plan.calls[position]
        candidates = _candidates(route, earlier)
        verdict = settle(prepared, candidates) if candidates else None
        if not isinstance(verdict, Synthesis):
            raise NothingToAggregate
        return aggregator_call(request, verdict.expert, verdict.messages, prepared.plan.deadline)

    def answer(self, request: ChatRequest, route: LineRoute, outcomes: Mapping[int, Outcome]) -> Answer:
        """The line's answer, when every call that can be made has ended (position to outcome). Traced, as a request's would be.

        Raises what the request would have: every expert failed.
        """
        recorder = TraceRecorder(request, self._sinks, keep_text=self._keep_text)
        recorder.strategy, recorder.decision = route.strategy, decision_of(route)
        recorder.routed(route.calls)
        num_candidates = len(route.selected)
        waits = {"experts": 0.0, "aggregate": 0.0}
        for position, outcome in sorted(outcomes.items()):
            is_candidate = position < num_candidates
            recorder.call(outcome, CallRole.CANDIDATE if is_candidate else CallRole.AGGREGATOR)
            stage = "experts" if is_candidate else "aggregate"
            waits[stage] = max(waits[stage], outcome.latency_s)
        for stage, seconds in waits.items():
            recorder.took(stage, seconds)
        try:
            final = self._final(request, route, outcomes, recorder)
        except ConsiliumError as error:
            recorder.finish(error)
            raise
        recorder.wrote(final.text)
        trace = recorder.finish()
        return Answer(request.id, request.model, final.choices, trace.usage, trace, final.extra)

    def _final(self, request: ChatRequest, route: LineRoute, outcomes: Mapping[int, Outcome], recorder: TraceRecorder) -> Candidate:
        candidates = _candidates(route, outcomes)
        if not candidates:
            failures = [outcome for outcome in outcomes.values() if isinstance(outcome, ExpertFailure)]
            raise error_for(failures, Deadline.after(self._wait_s))
        if len(candidates) == 1:  # it stands, whatever the registry has become since
            recorder.aggregated("single", why_single(len(route.selected)))
            return candidates[0]
        prepared = self._prepared(request, route)
        match settle(prepared, candidates):
            case None:
                return candidates[0]
            case Chosen(candidate=chosen, why=why, by=name):
                recorder.aggregated(name, why)
                return chosen
            case Synthesis(expert=expert, why=why):
                recorder.aggregated(f"{prepared.aggregator.name}:{expert.id}", why)
                written = outcomes.get(len(route.selected))
                if isinstance(written, Candidate) and is_answer(written):
                    return written
                chosen, why = instead_of(written, candidates)
                recorder.fell_back(why)
                return chosen

    def _prepared(self, request: ChatRequest, route: LineRoute) -> Prepared:
        return self._preparation.again(request, decision_of(route), aggregator_expert=route.aggregator, wait_s=self._wait_s)


def decision_of(route: LineRoute) -> RoutingDecision:
    """*route* as far as it was kept: of who was considered only those that were selected."""
    scores = dict(zip(route.selected, route.scores, strict=True))
    return RoutingDecision(
        router=route.router,
        selected=route.selected,
        considered=tuple(ScoredExpert(expert_id, score, selected=True) for expert_id, score in scores.items()),
        reason=route.reason,
        skills=route.skills,
        category=route.category,
        fallback=route.fallback,
        others_fit=False,
        calls=route.calls,
    )


def with_strategy(request: ChatRequest, strategy: str | None) -> ChatRequest:
    """*request* asked of the batch's *strategy*, where it leaves the choice to the service."""
    if strategy is None or request.model.removesuffix(":latest") != "auto":
        return request
    return replace(request, model=f"consilium/{strategy}")


def _candidates(route: LineRoute, outcomes: Mapping[int, Outcome]) -> list[Candidate]:
    """Those that answered, in the decision's order."""
    found = (outcomes.get(position) for position in range(len(route.selected)))
    return [outcome for outcome in found if isinstance(outcome, Candidate)]
