"""The top-level object ``consilium`` of an answer, and the answer of ``POST /v1/route``."""

from __future__ import annotations

from typing import Any

from domain.chat import Usage
from domain.routing import RoutingDecision
from domain.trace import Trace


def usage_object(usage: Usage) -> dict[str, int]:
    """OpenAI's usage object."""
    return {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens, "total_tokens": usage.total_tokens}


def decision_object(decision: RoutingDecision) -> dict[str, Any]:
    """A routing decision for people and programs."""
    return {
        "router": decision.router,
        "reason": decision.reason,
        "selected": list(decision.selected),
        "skills": [
            {"skill": m.skill, "similarity": round(float(m.similarity), 4), "weight": round(float(m.weight), 4)} for m in decision.skills
        ],
        "category": decision.category,
        "fallback": decision.fallback,
        "considered": [
            {"expert": e.expert_id, "score": round(float(e.score), 6), "selected": e.selected, "why": e.why} for e in decision.considered
        ],
        "detail": dict(decision.detail),
    }


def explain_object(trace: Trace) -> dict[str, Any]:
    """What happened to one request: who was considered, who was called, what it cost in time and tokens."""
    timings = trace.timings
    return {
        "request_id": trace.request_id,
        "strategy": trace.strategy,
        **(decision_object(trace.decision) if trace.decision else {"router": None, "reason": "", "skills": [], "considered": []}),
        "calls": [
            {
                "expert": call.expert_id,
                "role": call.role,
                "status": call.status,
                "error": call.error,
                "latency_ms": round(call.latency_ms, 2),
                "usage": usage_object(call.usage),
            }
            for call in trace.calls
        ],
        "aggregator": trace.aggregator,
        "timings_ms": {
            "route": round(timings.route, 3),
            "experts": round(timings.experts, 3),
            "aggregate": round(timings.aggregate, 3),
            "total": round(timings.total, 3),
            "overhead": round(timings.overhead, 3),
            "first_token": None if timings.first_token is None else round(timings.first_token, 3),
        },
    }
