"""The top-level object ``consilium`` of an answer, and the answer of ``POST /v1/route``."""

from __future__ import annotations

from typing import Any

from api.headers import EXPLICIT
from domain.chat import Usage
from domain.routing import RoutingDecision
from domain.trace import CallRecord, Trace


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object."""
    counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens, "total_tokens": usage.total_tokens}
    return {**counts, **usage.details}


_UNDECIDED = RoutingDecision(router="", selected=(), considered=())


def decision_object(decision: RoutingDecision | None) -> dict[str, Any]:
    """A routing decision for people and programs; of a request that failed before one, the same keys with nothing in them."""
    told = decision or _UNDECIDED
    return {
        "router": told.router or None,
        "reason": told.reason,
        "selected": list(told.selected),
        "skills": [
            {"skill": m.skill, "similarity": round(float(m.similarity), 4), "weight": round(float(m.weight), 4)} for m in told.skills
        ],
        "category": told.category,
        "fallback": told.fallback,
        "considered": [
            {"expert": e.expert_id, "score": round(float(e.score), 6), "selected": e.selected, "why": e.why} for e in told.considered
        ],
        "detail": dict(told.detail),
    }


def _of_stage(call: CallRecord) -> dict[str, Any]:
    """Of a mode with several stages: which one it was, how sure the answer, and what became of it."""
    if call.stage is None:
        return {}
    confidence = None if call.confidence is None else round(call.confidence, 4)
    return {"stage": call.stage, "confidence": confidence, "note": call.note}


def explain_object(trace: Trace) -> dict[str, Any]:
    """What happened to one request: who was considered, who was called, what it cost in time and tokens."""
    timings = trace.timings
    return {
        "request_id": trace.request_id,
        "strategy": trace.strategy or (EXPLICIT if trace.decision else None),
        **decision_object(trace.decision),
        "calls": [
            {
                "expert": call.expert_id,
                "role": call.role,
                "status": call.status,
                "error": call.error,
                "started_ms": None if call.started_ms is None else round(call.started_ms, 2),
                "latency_ms": round(call.latency_ms, 2),
                "usage": usage_object(call.usage),
                **_of_stage(call),
            }
            for call in trace.calls
        ],
        "aggregator": trace.aggregator,
        "aggregator_reason": trace.aggregator_reason,
        "answered_by": trace.answered_by,
        "panel_changed_answer": trace.panel_changed_answer,
        "sequential_tokens": trace.sequential_tokens,
        "timings_ms": {
            "route": round(timings.route, 3),
            "experts": round(timings.experts, 3),
            "aggregate": round(timings.aggregate, 3),
            "total": round(timings.total, 3),
            "overhead": round(timings.overhead, 3),
            "first_token": None if timings.first_token is None else round(timings.first_token, 3),
        },
    }
