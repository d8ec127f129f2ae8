"""From a decision to calls. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from domain.chat import ChatRequest, Message
from domain.deadline import Deadline
from domain.errors import InvalidRequest
from domain.experts import ExpertCard
from domain.plan import CallRole, ExpertCall, Plan
from domain.routing import RoutingDecision

REPEAT_TEMPERATURE = 0.7
"""Of an expert that was drawn again, when the caller asked for none: at 0 a second call would repeat the first.
Symbolic-MoE samples all its answers at 0.7."""


def expert_params(card: ExpertCard, params: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's *params* over the card's sampling defaults."""
    return {**card.sampling, **{name: value for name, value in params.items() if value is not None}}


def make_plan(
    request: ChatRequest,
    decision: RoutingDecision,
    experts: Mapping[str, ExpertCard],
    *,
    deadline: Deadline,
    max_calls: int,
    fused: bool,
) -> Plan:
    """The candidates' calls, in the decision's order.

    *fused* says that another call will read the candidates: room for it is kept within *max_calls*. In a panel every
    expert gives one choice; what else shapes the answer (tools, response_format) holds for each, since any of them may
    end up as the answer. An expert that was drawn twice is called twice, the second time with another seed.

    Raises ``InvalidRequest`` when a panel is asked for more than one choice.
    """
    selected = decision.selected
    if len(selected) > 1 and fused:
        selected = selected[: max(1, max_calls - 1)]
    selected = selected[:max_calls]
    panel = len(selected) > 1
    if panel and (request.params.get("n") or 1) > 1:
        raise InvalidRequest(
            f"n: several choices come from one expert, and this query goes to {len(selected)} ({', '.join(selected)}); "
            "leave n out, set consilium.k to 1, or ask a model by name",
            param="n",
        )
    calls = []
    for position, expert_id in enumerate(selected):
        card = experts[expert_id]
        params = expert_params(card, request.params)
        if panel:
            params.pop("n", None)
            if expert_id in selected[:position]:
                params["seed"] = (params.get("seed") or request.options.seed or 0) + position
                if request.params.get("temperature") is None:
                    params["temperature"] = params.get("temperature") or REPEAT_TEMPERATURE
        calls.append(ExpertCall(card, request.messages, params, deadline, request.id))
    return Plan(tuple(calls), deadline)


def as_planned(decision: RoutingDecision, plan: Plan, *, max_calls: int, fused: bool) -> RoutingDecision:
    """*decision* as far as *plan* carries it out: whom the cap on calls leaves out is not selected, and the reason says so."""
    called = tuple(call.expert.id for call in plan.calls)
    if len(called) == len(decision.selected):
        return decision
    missed = ", ".join(expert_id for expert_id in dict.fromkeys(decision.selected) if expert_id not in called)
    room = f"max_calls leaves {max_calls} call{'s' * (max_calls != 1)}{', one of them to the aggregator' if fused else ''}"
    said = f"Note: {room}, so {len(called)} of {len(decision.selected)} candidates {'is' if len(called) == 1 else 'are'} asked"
    return replace(
        decision,
        selected=called,
        considered=tuple(replace(expert, selected=expert.expert_id in called) for expert in decision.considered),
        reason=f"{decision.reason} {said}{f', without {missed}' if missed else ''}.",
    )


def aggregator_call(request: ChatRequest, card: ExpertCard, messages: tuple[Message, ...], deadline: Deadline) -> ExpertCall:
    """The call that fuses the candidates."""
    return ExpertCall(card, messages, expert_params(card, request.params), deadline, request.id, CallRole.AGGREGATOR)
