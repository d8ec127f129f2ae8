"""One line of a batch, handled with the very parts that a single request goes through: same routing, same calls, same answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from domain.batch import LineRoute, Waves
from domain.chat import ChatRequest
from domain.deadline import Deadline
from domain.errors import ConsiliumError, DeadlineExceeded, ExpertUnavailable, NoEligibleExpert
from domain.memory import NOTHING_RECALLED
from domain.plan import CallRole, Candidate, ExpertCall, ExpertFailure, Outcome
from domain.routing import RoutingDecision, ScoredExpert
from domain.trace_context import TraceContext
from orchestrator.aggregation.option_probabilities import without_them
from orchestrator.answer import Answer
from orchestrator.failures import error_for
from orchestrator.modes.base import Ask, NextExpert, Nobody, Told, Write
from orchestrator.modes.cascade import Cascade
from orchestrator.modes.play import Play, call_at, replayed
from orchestrator.modes.single import SINGLE, why_single
from orchestrator.ports import TraceSink
from orchestrator.preparation import Preparation, Prepared
from orchestrator.recorder import TraceRecorder


class NothingToAggregate(Exception):
    """The candidates need no aggregator's call. Never leaves the engine."""


class Lines:
    """Holds nothing of any line."""

    def __init__(
        self,
        preparation: Preparation,
        unhurried: Preparation,
        sinks: Sequence[TraceSink],
        *,
        keep_text: bool,
        wait_s: float,
        encoder_id: Callable[[], str | None] | None = None,
    ) -> None:
        """*unhurried* prepares, with every expert taken as well, what *preparation* finds nobody for. *wait_s*: longest wait of a call for
        its expert's server, beside the time that its strategy gives it. *encoder_id*: whose vectors the decisions carry, None while it
        is not loaded; without it vectors are not kept."""
        self._preparation, self._unhurried, self._sinks = preparation, unhurried, tuple(sinks)
        self._keep_text, self._wait_s, self._encoder_id = keep_text, wait_s, encoder_id

    async def route(self, request: ChatRequest) -> LineRoute:
        """Who answers. Raises what a single request would get before any expert is called; that is traced."""
        recorder = TraceRecorder(request, self._sinks, keep_text=self._keep_text)
        try:
            prepared = await self._prepare(request, recorder)
        except ConsiliumError as error:
            recorder.finish(error)
            raise
        decision, mode = prepared.context.decision, prepared.mode
        scores = {expert.expert_id: expert.score for expert in decision.considered}
        play = Play(mode)
        first = play.now.calls if isinstance(play.now, Ask | Write) else ()
        play.close()
        vector = decision.vector if self._encoder_id is not None else None
        return LineRoute(
            router=decision.router,
            selected=decision.selected,
            scores=tuple(scores.get(expert_id, 0.0) for expert_id in decision.selected),
            aggregator=mode.reader.id if mode.reader is not None else None,
            strategy=recorder.strategy,
            reason=decision.reason,
            skills=decision.skills,
            category=decision.category,
            fallback=decision.fallback,
            calls=decision.calls,
            cascade=decision.cascade if isinstance(mode, Cascade) else None,
            waves=None if mode.is_known_ahead else Waves(mode.num_calls, tuple(call.expert.id for call in first), mode.others),
            vector=vector,
            encoder_id=self._encoder_id() if self._encoder_id is not None and vector is not None else None,
            recalled=prepared.context.recalled if prepared.context.recalled != NOTHING_RECALLED else None,
        )

    async def _prepare(self, request: ChatRequest, recorder: TraceRecorder) -> Prepared:
        try:
            return await self._preparation.prepare(request, recorder)
        except NoEligibleExpert as nobody:
            if not self._preparation.may_be_answered_later(request):  # it is like nothing known: with everybody there it would be, too
                raise
            try:
                return await self._unhurried.prepare(request, recorder)
            except ConsiliumError:
                raise nobody from None

    def call(
        self, request: ChatRequest, route: LineRoute, position: int, earlier: Mapping[int, Outcome], expert_id: str | None = None
    ) -> ExpertCall:
        """The call at *position*, which may read *earlier*; *expert_id* is who was chosen for it, where that was on the way.

        Raises ``RequestError`` when the registry has changed so much that it cannot be made any more, and ``NothingToAggregate``.
        """
        prepared = self._prepared(request, route)
        chosen = {} if expert_id is None or route.waves is None else {position: expert_id}
        if route.waves is None and position >= len(route.selected):
            earlier = _filled(route, earlier)
        call = call_at(replayed(prepared.mode, earlier, card_of=prepared.context.snapshot.experts.get, chosen=chosen), position)
        if call is None:
            raise NothingToAggregate
        return replace(call, context=_span(request, position))

    async def asked_next(self, request: ChatRequest, route: LineRoute, outcomes: Mapping[int, Outcome]) -> tuple[tuple[int, str], ...]:
        """Of a line whose calls come in waves: those that come after those that have ended, as position and expert; none when it is over.

        Raises as ``call`` does.
        """
        if route.waves is None:
            return ()
        prepared = self._prepared(request, route)
        experts = prepared.context.snapshot.experts
        play = replayed(prepared.mode, outcomes, card_of=experts.get)
        while isinstance(play.now, NextExpert):
            play.go_on(await self._preparation.next_expert(prepared, play.now))
        if not isinstance(play.now, Ask | Write):
            return ()
        missing = [(position, call) for position, call in zip(play.positions, play.now.calls, strict=True) if position not in outcomes]
        return tuple((position, call.expert.id) for position, call in missing)

    def answer(self, request: ChatRequest, route: LineRoute, outcomes: Mapping[int, Outcome]) -> Answer:
        """The line's answer, when every call that can be made has ended (position to outcome). Traced, as a request's would be.

        Raises what the request would have: every expert failed.
        """
        view, recorder = self._preparation.view(request.access), TraceRecorder(request, self._sinks, keep_text=self._keep_text)
        outcomes = {position: view.outcome(outcome) for position, outcome in outcomes.items()}
        recorder.strategy, recorder.decision = route.strategy, replace(decision_of(route), vector=self._vector(route))
        recorder.routed(route.calls)
        try:
            final = self._final(request, route, outcomes, recorder)
        except ConsiliumError as error:
            recorder.finish(error)
            raise
        recorder.wrote(final.text)
        recorder.answered_by = final.expert_id
        trace = recorder.finish()
        return Answer(request.id, request.model, final.choices, trace.usage, trace, final.extra)

    def _final(self, request: ChatRequest, route: LineRoute, outcomes: Mapping[int, Outcome], recorder: TraceRecorder) -> Candidate:
        only = _only_answer(route, outcomes)
        if only is not None:  # it stands, whatever the registry has become since
            _keep(request, outcomes, recorder)
            recorder.aggregated(SINGLE, why_single(len(route.selected)))
            return only if len(route.selected) == 1 else without_them(request, only)
        prepared = self._prepared(request, route)
        ledger = prepared.ledger

        def keep(step: Ask | Write, positions: Sequence[int], ended: Sequence[Outcome]) -> None:
            recorder.took(step.wait, max((outcome.latency_s for outcome in ended), default=0.0))
            for call, position, outcome in zip(step.calls, positions, ended, strict=True):
                recorder.call(outcome, call.role, stage=step.stage, span=_span(request, position))
            ledger.ended(step.calls, ended)

        known = outcomes if route.waves is not None else _filled(route, outcomes)
        play = replayed(prepared.mode, known, card_of=prepared.context.snapshot.experts.get, on_step=keep)
        while isinstance(play.now, NextExpert):  # nobody was left to choose, or it would have been called
            play.go_on(None)
        step, recorder.sequential_tokens = play.now, ledger.sequential_tokens
        if isinstance(step, Write) and step.so_far is not None and route.waves is None:
            step = step.so_far("it was not called")
        if not isinstance(step, Told | Nobody):
            raise DeadlineExceeded("the batch ended before this line did")
        for noted in step.notes:
            recorder.judged(noted.stage, noted.confidence, noted.note)
        if isinstance(step, Nobody):
            raise error_for(step.failures, Deadline.after(self._wait_s))
        recorder.aggregated(step.by, step.why, is_own=step.is_own)
        recorder.panel_changed_answer = step.changed
        return step.answer

    def _vector(self, route: LineRoute) -> bytes | None:
        """That of *route*, for its trace; None where the encoder has been changed since, whose id the trace would bear."""
        is_current = self._encoder_id is not None and route.vector is not None and route.encoder_id == self._encoder_id()
        return route.vector if is_current else None

    def _prepared(self, request: ChatRequest, route: LineRoute) -> Prepared:
        return self._preparation.again(
            request,
            decision_of(route),
            aggregator_expert=route.aggregator,
            wait_s=self._wait_s,
            in_waves=route.waves is not None,
            recalled=route.recalled or NOTHING_RECALLED,
        )


def decision_of(route: LineRoute) -> RoutingDecision:
    """*route* as far as it was kept: of who was considered only those that were selected. Without its vector."""
    scores = dict(zip(route.selected, route.scores, strict=True))
    others = [expert_id for expert_id in (route.waves.others if route.waves is not None else ()) if expert_id not in scores]
    return RoutingDecision(
        router=route.router,
        selected=route.selected,
        considered=(
            *(ScoredExpert(expert_id, score, selected=True) for expert_id, score in scores.items()),
            *(ScoredExpert(expert_id, 0.0, selected=False) for expert_id in others),
        ),
        reason=route.reason,
        skills=route.skills,
        category=route.category,
        fallback=route.fallback,
        others_fit=False,
        calls=route.calls,
        cascade=route.cascade,
        detail={} if route.recalled is None else {"memory": dict(route.recalled.told)},
    )


def with_strategy(request: ChatRequest, strategy: str | None) -> ChatRequest:
    """*request* asked of the batch's *strategy*, where it leaves the choice to the service."""
    if strategy is None or request.model.removesuffix(":latest") != "auto":
        return request
    return replace(request, model=f"consilium/{strategy}")


def _only_answer(route: LineRoute, outcomes: Mapping[int, Outcome]) -> Candidate | None:
    """The answer of a panel that has one candidate left, or of one expert alone."""
    if route.waves is not None:
        return None
    found = [outcome for position in range(len(route.selected)) if isinstance(outcome := outcomes.get(position), Candidate)]
    return found[0] if len(found) == 1 else None


def _filled(route: LineRoute, outcomes: Mapping[int, Outcome]) -> dict[int, Outcome]:
    """*outcomes* with a failure for each candidate that came to none."""
    missing = {
        position: ExpertFailure(expert_id, ExpertUnavailable.code, "it was not called", expert_at_fault=False)
        for position, expert_id in enumerate(route.selected)
    }
    return {**missing, **outcomes}


def _keep(request: ChatRequest, outcomes: Mapping[int, Outcome], recorder: TraceRecorder) -> None:
    """The candidates' calls of a line that came to one answer."""
    recorder.took("experts", max((outcome.latency_s for outcome in outcomes.values()), default=0.0))
    for position, outcome in outcomes.items():
        recorder.call(outcome, CallRole.CANDIDATE, span=_span(request, position))


def _span(request: ChatRequest, position: int) -> TraceContext | None:
    """The span of the call at *position*, below the line's. It follows from there: who makes a call is not always who tells of it."""
    return None if request.context is None else request.context.named_child(f"call at {position}")
