"""From a decision to calls. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domain.chat import ChatRequest, Message
from domain.deadline import Deadline
from domain.experts import ExpertCard
from domain.plan import CallRole, ExpertCall, Plan
from domain.routing import RoutingDecision

_LAST_STEP_ONLY = frozenset({"n", "tools", "tool_choice", "parallel_tool_calls", "response_format", "logprobs", "top_logprobs"})
"""What shapes the final answer: in a panel that is fused, only the fusing expert gets it."""


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

    *fused* says that another call will read the candidates: room for it is kept within *max_calls*, and what shapes
    the final answer is kept from the candidates. An expert that was drawn twice is called twice, with another seed.
    """
    selected = decision.selected
    if len(selected) > 1 and fused:
        selected = selected[: max(1, max_calls - 1)]
    selected = selected[:max_calls]
    panel = len(selected) > 1
    calls = []
    for position, expert_id in enumerate(selected):
        card = experts[expert_id]
        params = expert_params(card, request.params)
        if panel:
            hidden = _LAST_STEP_ONLY if fused else {"n"}
            params = {name: value for name, value in params.items() if name not in hidden}
            if expert_id in selected[:position]:
                params["seed"] = (params.get("seed") or request.options.seed or 0) + position
        calls.append(ExpertCall(card, request.messages, params, deadline, request.id))
    return Plan(tuple(calls), deadline, max_calls)


def aggregator_call(request: ChatRequest, card: ExpertCard, messages: tuple[Message, ...], deadline: Deadline) -> ExpertCall:
    """The call that fuses the candidates."""
    return ExpertCall(card, messages, expert_params(card, request.params), deadline, request.id, CallRole.AGGREGATOR)
