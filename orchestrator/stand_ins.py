"""Who is asked in place of experts that failed, or beside one that is silent. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from domain.errors import (
    CallRefused,
    ExpertAuthFailed,
    ExpertOverloaded,
    ExpertProtocolError,
    ExpertTimeout,
    ExpertUnavailable,
    ExpertUnreachable,
)
from domain.experts import ExpertCard
from domain.plan import ExpertFailure
from domain.routing import RoutingDecision, ScoredExpert
from orchestrator.modes.single import Single
from orchestrator.planner import candidate_calls
from orchestrator.preparation import Prepared

_OF_ITS_OWN = frozenset(
    error.code for error in (ExpertUnreachable, ExpertTimeout, ExpertUnavailable, ExpertOverloaded, ExpertAuthFailed, ExpertProtocolError)
)
"""Failures that say nothing about the request: another expert may answer it. What one refused, others would refuse as well."""


def stand_in(
    prepared: Prepared, failures: Sequence[ExpertFailure], *, before: Sequence[ExpertFailure] = (), repeatable: bool = True
) -> Prepared | None:
    """*prepared* with the next best considered expert instead of those that have failed, which *failures* are of, and those that had
    failed *before* them; None when nobody else may be asked.

    Nobody is where the scores do not speak of the query, where an expert refused the request itself, where none of the request's calls is
    left, and once one of them was called also where no time is left, where enough stand-ins have failed, and where the calls that were
    made are not *repeatable*. Failed calls count; an expert that could not be called, because its circuit opened between routing and call
    or because another request had its one trial, costs none. Whom the request's budget had no room for beside the others may be asked now.
    """
    asked = [failure for failure in failures if failure.code != CallRefused.code]
    known = [failure for failure in (*before, *asked) if failure.code != CallRefused.code]
    is_called = any(failure.called for failure in known)
    if not asked or not {failure.code for failure in known} <= _OF_ITS_OWN or prepared.ledger.num_left < 1:
        return None
    if is_called and (prepared.num_stand_ins < 1 or prepared.deadline.expired or not repeatable):
        return None
    chosen = next(fitting(prepared, without={failure.expert_id for failure in known}), None)
    if chosen is None:
        return None
    said = f"{_missed(prepared, asked)}, so the next best was asked, {chosen.id}"
    decision = decided_for(prepared, chosen, f"Note: {said}.")
    context = replace(prepared.context, decision=decision)
    (call,) = candidate_calls(context, decision, max_calls=1)
    return replace(prepared, mode=Single(call, said), context=context, num_stand_ins=prepared.num_stand_ins - is_called)


def fitting(prepared: Prepared, *, without: AbstractSet[str]) -> Iterator[ExpertCard]:
    """The considered experts that may be called, best first; none where the scores do not speak of the query."""
    context = prepared.context
    if not context.decision.others_fit:
        return
    for expert in context.decision.considered:
        if expert.score > 0 and expert.expert_id not in without:
            card = context.snapshot.experts[expert.expert_id]
            if context.usable(card):
                yield card


def decided_for(prepared: Prepared, card: ExpertCard, note: str) -> RoutingDecision:
    """The decision of *prepared* with *card* alone selected, and its reason with *note* behind it."""
    decision = prepared.context.decision
    return replace(
        decision,
        cascade=None,
        selected=(card.id,),
        considered=tuple(_with_selected(expert, expert.expert_id == card.id) for expert in decision.considered),
        reason=f"{decision.reason} {note}",
    )


def _missed(prepared: Prepared, failures: Sequence[ExpertFailure]) -> str:
    """Who did not answer, those that were selected first."""
    failed = dict.fromkeys(failure.expert_id for failure in failures)
    in_order = dict.fromkeys([*(expert_id for expert_id in prepared.context.decision.selected if expert_id in failed), *failed])
    called = {failure.expert_id for failure in failures if failure.called}
    gave_none = ", ".join(expert_id for expert_id in in_order if expert_id in called)
    skipped = ", ".join(expert_id for expert_id in in_order if expert_id not in called)
    told = [f"{gave_none} failed"] * bool(gave_none) + [f"{skipped} could not be called"] * bool(skipped)
    return " and ".join(told)


def _with_selected(expert: ScoredExpert, selected: bool) -> ScoredExpert:
    """A copy puts its reason into words, so there is none where nothing changes."""
    return expert if expert.selected is selected else replace(expert, selected=selected)
