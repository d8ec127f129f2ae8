"""From a decision to calls. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from domain.chat import ChatRequest, Message
from domain.deadline import Deadline
from domain.errors import InvalidRequest
from domain.experts import ExpertCard
from domain.plan import CallRole, ExpertCall
from domain.routing import RoutingDecision
from orchestrator.aggregation.base import AggregationContext
from orchestrator.budget import answer_bound, no_longer
from orchestrator.effort import thinking_params

REPEAT_TEMPERATURE = 0.7
"""Of an expert that was drawn again, when the caller asked for none: at 0 a second call would repeat the first.
Symbolic-MoE samples all its answers at 0.7."""
_SEEDS = 2**63
"""Where seeds begin anew: larger ones cannot be written down for an expert."""

NumAfter = Callable[[int], int]
"""Calls that follow from so many candidates."""


def no_more(num_candidates: int) -> int:  # noqa: ARG001 - a ``NumAfter``
    """Nobody is called after the candidates."""
    return 0


def expert_params(card: ExpertCard, request: ChatRequest) -> dict[str, Any]:
    """The caller's parameters over what its effort says, over the card's sampling defaults."""
    asked = {name: value for name, value in request.params.items() if value is not None}
    return {**card.sampling, **asked} if request.effort is None else {**card.sampling, **thinking_params(card, request.effort), **asked}


def within_effort(call: ExpertCall, request: ChatRequest) -> ExpertCall:
    """*call* with an answer that is no longer than the effort of *request* allows, where the caller does not say how long."""
    most = None if request.effort is None else request.effort.level.max_tokens
    return call if most is None or answer_bound(request.params) is not None else no_longer(call, most)


def candidate_calls(
    context: AggregationContext, decision: RoutingDecision, *, max_calls: int, num_after: NumAfter = no_more
) -> tuple[ExpertCall, ...]:
    """The candidates' calls, in *decision*'s order, as many as leave room within *max_calls* for those that will read them.

    In a panel every expert gives one choice; what else shapes the answer (tools, response_format) holds for each, since any of them may
    end up as the answer. An expert that was drawn twice is called twice, the second time with another seed.

    Raises ``InvalidRequest`` when a panel is asked for more than one choice.
    """
    request, selected = context.request, decision.selected
    num = min(len(selected), max_calls)
    while num > 1 and num + num_after(num) > max_calls:
        num -= 1
    selected = selected[:num]
    panel = num > 1
    if panel and (request.params.get("n") or 1) > 1:
        raise InvalidRequest(
            f"n: several choices come from one expert, and this query goes to {len(selected)} ({', '.join(selected)}); "
            "leave n out, set consilium.k to 1, or ask a model by name",
            param="n",
        )
    calls = []
    deadline = candidate_deadline(context) if panel else context.deadline
    for position, expert_id in enumerate(selected):
        card = context.snapshot.experts[expert_id]
        params = expert_params(card, request)
        if panel:
            params.pop("n", None)
            if expert_id in selected[:position]:
                params |= repeated(params, request, position)
        call = ExpertCall(card, request.messages, params, deadline, request.id, again=context.again)
        calls.append(within_effort(call, request))
    return tuple(calls)


def seed_of(request: ChatRequest) -> int:
    """For everything random in a request; the same request gives the same."""
    if request.options.seed is not None:
        return request.options.seed
    asked = request.params.get("seed")
    return asked if isinstance(asked, int) else zlib.crc32(request.id.encode())


def repeated(params: Mapping[str, Any], request: ChatRequest, sample: int) -> dict[str, Any]:
    """What makes another *sample* (from 1) of the same expert another answer."""
    changed: dict[str, Any] = {"seed": ((params.get("seed") or request.options.seed or 0) + sample) % _SEEDS}
    if request.params.get("temperature") is None:
        changed["temperature"] = params.get("temperature") or REPEAT_TEMPERATURE
    return changed


def candidate_deadline(context: AggregationContext) -> Deadline:
    """By which one of several candidates has to have answered."""
    own_s = context.request.options.candidate_timeout_s or context.strategy.candidate_timeout_s
    if own_s is None or own_s >= context.deadline.remaining_s:
        return context.deadline
    return Deadline.after(own_s, clock=context.deadline.clock)


def as_planned(decision: RoutingDecision, calls: Sequence[ExpertCall], *, max_calls: int, num_after: int) -> RoutingDecision:
    """*decision* as far as *calls* carry it out: whom the cap on calls leaves out is not selected, and the reason says so."""
    called = tuple(call.expert.id for call in calls)
    if len(called) == len(decision.selected):
        return decision
    missed = ", ".join(expert_id for expert_id in dict.fromkeys(decision.selected) if expert_id not in called)
    kept = f", {'one' if num_after == 1 else num_after} of them to the aggregator" if num_after else ""
    room = f"max_calls leaves {max_calls} call{'s' * (max_calls != 1)}{kept}"
    said = f"{room}, so {len(called)} of {len(decision.selected)} candidates {'is' if len(called) == 1 else 'are'} asked"
    return narrowed(decision, range(len(called)), f"{said}{f', without {missed}' if missed else ''}")


def narrowed(decision: RoutingDecision, kept: Sequence[int], said: str, *, detail: Mapping[str, Any] | None = None) -> RoutingDecision:
    """*decision* with those of its selected experts only that stand at the positions *kept*; the reason says why, and so does *detail*."""
    selected = tuple(decision.selected[position] for position in kept)
    return replace(
        decision,
        selected=selected,
        considered=tuple(replace(expert, selected=expert.expert_id in selected) for expert in decision.considered),
        reason=f"{decision.reason} Note: {said}.",
        detail={**decision.detail, **(detail or {})},
    )


def aggregator_call(context: AggregationContext, card: ExpertCard, messages: tuple[Message, ...]) -> ExpertCall:
    """The call whose words are the answer, made from what others have said."""
    request = context.request
    params = expert_params(card, request)
    call = ExpertCall(card, messages, params, context.deadline, request.id, CallRole.AGGREGATOR, again=context.again)
    return within_effort(call, request)
