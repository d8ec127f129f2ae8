"""Experts at once, and one answer made of theirs by an aggregator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from domain.experts import ExpertCard
from domain.plan import Candidate, ExpertCall, ExpertFailure, Outcome
from domain.routing import RoutingDecision
from orchestrator.aggregation.base import AggregationContext, Aggregator, Chosen, Deliberation, Synthesis
from orchestrator.aggregation.fallback import instead_of, is_answer
from orchestrator.aggregation.material import fits, fitting
from orchestrator.aggregation.option_probabilities import asked_for_them, without_them
from orchestrator.aggregation.vote import Vote, ballot
from orchestrator.aggregation.weighted_vote import wants_probabilities
from orchestrator.modes.base import Ask, End, Nobody, SoFar, Steps, Told, Write
from orchestrator.modes.single import SINGLE, Single, why_single
from orchestrator.planner import aggregator_call, as_planned, candidate_calls


@dataclass(frozen=True, slots=True)
class Panel:
    """Two or more candidates."""

    context: AggregationContext
    calls: tuple[ExpertCall, ...]
    aggregator: Aggregator
    num_free_calls: int
    """Calls that may still be made after the candidates'."""

    is_alone = False
    others = ()

    @property
    def is_known_ahead(self) -> bool:
        return self.aggregator.writes or not self.aggregator.calls_expert

    @property
    def reader(self) -> ExpertCard | None:
        return self.aggregator.expert_for(self.context) if self._num_to_come else None

    @property
    def announced(self) -> str:
        if not self.aggregator.calls_expert:
            return self.aggregator.name
        expert = self.reader
        return self.aggregator.without_expert(self.context) if expert is None else f"{self.aggregator.name}:{expert.id}"

    @property
    def num_calls(self) -> int:
        return len(self.calls) + self._num_to_come

    @property
    def _num_to_come(self) -> int:
        num = self.aggregator.num_calls(self.context, len(self.calls))
        return num if num <= self.num_free_calls else 0

    def steps(self) -> Steps:
        context = self.context
        quorum = context.request.options.quorum or context.strategy.quorum
        outcomes = yield Ask(self.calls, num_to_come=self._num_to_come, quorum=quorum)
        candidates = [outcome for outcome in outcomes if isinstance(outcome, Candidate)]
        if not candidates:
            return Nobody(tuple(outcome for outcome in outcomes if isinstance(outcome, ExpertFailure)))
        if len(candidates) == 1:
            return self.as_asked(Told(candidates[0], SINGLE, why_single(len(self.calls))))
        end = yield from aggregated(context, self.aggregator, candidates, num_free_calls=self.num_free_calls)
        return self.as_asked(compared(end, candidates))

    def as_asked(self, end: End) -> End:
        """*end* without what only the aggregator wanted of the candidates."""
        if not isinstance(end, Told) or not wants_probabilities(self.context, self.aggregator):
            return end
        return replace(end, answer=without_them(self.context.request, end.answer))


def panel_of(context: AggregationContext, aggregator: Aggregator, max_calls: int) -> tuple[RoutingDecision, Panel | Single]:
    """All at once, then the aggregator; one alone where one is enough. And the decision as far as *max_calls* carries it out."""
    decision = context.decision
    calls = candidate_calls(context, decision, max_calls=max_calls, num_after=partial(aggregator.num_calls, context))
    if len(calls) == len(decision.selected) == 1:  # nearly always: nobody has to be looked for who would read it
        return decision, Single(calls[0])
    num_after = aggregator.num_calls(context, max(2, len(calls)))
    planned = as_planned(decision, calls, max_calls=max_calls, num_after=num_after)
    if len(calls) == 1:
        return planned, Single(calls[0])
    if planned is not decision:
        context = replace(context, decision=planned)
    if wants_probabilities(context, aggregator):
        calls = tuple(asked_for_them(call) for call in calls)
    return planned, Panel(context, calls, aggregator, max_calls - len(calls))


def compared(end: End, candidates: Sequence[Candidate]) -> End:
    """*end* with whether its answer says something else than that of the first of *candidates*, the best-scored one. SMART (arXiv
    2502.11435) counts calls that changed nothing; this is what they are counted by."""
    return replace(end, changed=ballot(end.answer) != ballot(candidates[0])) if isinstance(end, Told) else end


def aggregated(
    context: AggregationContext, aggregator: Aggregator, candidates: Sequence[Candidate], *, num_free_calls: int, stage: int | None = None
) -> Steps:
    """From two or more candidates, best first, to the answer. An aggregator that would need more calls than the request may make gives
    way to a vote; one whose call comes to nothing to the best candidate."""
    verdict = aggregator.decide(context, candidates)
    if not isinstance(verdict, Chosen) and num_free_calls < (num := 1 if isinstance(verdict, Synthesis) else len(verdict.calls)):
        chosen = Vote().decide(context, candidates)
        expert = verdict.expert.id if isinstance(verdict, Synthesis) else verdict.calls[0].expert.id
        which = "no call" if num == 1 else f"{num_free_calls} of {num} calls"
        verdict = Chosen(chosen.candidate, f"max_calls leaves {which} to {expert}, so {chosen.why}", chosen.by)
    if isinstance(verdict, Deliberation):
        by, why = verdict.by, verdict.why
        outcomes = yield Ask(verdict.calls, stage, wait="aggregate", so_far=_best_so_far(context, candidates, by, why))
        verdict = verdict.conclude(outcomes)
        return Told(verdict.candidate, by if verdict.by == aggregator.name else verdict.by, verdict.why)
    if isinstance(verdict, Chosen):
        return Told(verdict.candidate, verdict.by, verdict.why)
    by, why = f"{aggregator.name}:{verdict.expert.id}", verdict.why
    call = aggregator_call(context, verdict.expert, verdict.messages)
    (written,) = yield Write(call, by, why, stage=stage, so_far=_best_so_far(context, candidates, by, why))
    return written_or_best(context, written, candidates, by, why)


def written_or_best(context: AggregationContext, written: Outcome, candidates: Sequence[Candidate], by: str, why: str) -> Told:
    """What the last call has *written*, or the best of *candidates* where that is no answer to what was asked."""
    if isinstance(written, Candidate) and fits(context.request, written):
        return Told(written, by, why, is_own=False)
    best, instead = instead_of(written, fitting(context.request, candidates))
    if isinstance(written, Candidate) and is_answer(written) and not fits(context.request, best):
        return Told(written, by, why, is_own=False)  # nobody has answered what was asked
    if isinstance(written, Candidate) and is_answer(written):
        instead = f"it answered no JSON, so the best-scored candidate that did stands in, {best.expert_id}"
    return Told(best, f"{by} (fallback)", f"{why}; {instead}")


def _best_so_far(context: AggregationContext, candidates: Sequence[Candidate], by: str, why: str) -> SoFar:
    def so_far(because: str) -> Told:
        best, instead = instead_of(None, fitting(context.request, candidates))
        return Told(best, f"{by} (fallback)", f"{why}; {because}; {instead}")

    return so_far
