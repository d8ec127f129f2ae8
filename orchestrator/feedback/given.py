"""From what somebody said about an answer to what that says of experts. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from domain.errors import InvalidRequest
from domain.feedback import Feedback
from domain.nearest import did_you_mean
from domain.plan import CallRole
from domain.quoting import quoted
from domain.trace import Trace


def feedback_of(
    trace: Trace, given: Mapping[str, Any], *, own_id: str | None, now: float, vector: bytes | None = None, encoder_id: str | None = None
) -> Feedback:
    """*given* is one of ``{"score": 0..1}``, ``{"correct": bool}`` and ``{"correct_expert": [ids]}``.

    Of a score it is the expert whose answer was told that gets it; a fused answer is nobody's own, so nobody does. Of experts that were
    right, every other one that answered was wrong (DriftMoE's multi-hot target). Raises ``InvalidRequest`` when nothing was answered,
    or an expert is named that was not considered.
    """
    scores = _of_experts(trace, given["correct_expert"]) if "correct_expert" in given else _of_answer(trace, given)
    decision = trace.decision
    routed = {scored.expert_id: scored.score for scored in decision.considered} if decision is not None else {}
    return Feedback(
        id=feedback_id(trace.id, own_id),
        request_id=trace.request_id,
        trace_id=trace.id,
        created_at=now,
        given=given,
        scores=scores,
        expected={expert_id: min(max(routed[expert_id], 0.0), 1.0) for expert_id in scores if expert_id in routed},
        answered_by=trace.answered_by,
        strategy=trace.strategy,
        router=decision.router if decision is not None else None,
        skills=tuple((match.skill, match.weight) for match in decision.skills) if decision is not None else (),
        category=decision.category if decision is not None else None,
        vector=vector,
        encoder_id=encoder_id if vector is not None else None,
    )


def feedback_id(trace_id: str, own_id: str | None) -> str:
    """One for each request, and one more for each *own_id* that the givers choose within it."""
    return f"fb-{trace_id}" if own_id is None else f"fb-{trace_id}-{hashlib.sha256(own_id.encode()).hexdigest()[:12]}"


def _is_own(trace: Trace) -> bool:
    """Whether the answer is one expert's own. Of traces in which it does not stand: as far as nobody is named who made it."""
    made = trace.aggregator or ""
    return trace.is_own if trace.is_own is not None else ":" not in made or made.endswith("(fallback)")


def _answered(trace: Trace) -> dict[str, None]:
    """The candidates that answered."""
    return {call.expert_id: None for call in trace.calls if call.role is CallRole.CANDIDATE and call.status == "ok"}


def _of_answer(trace: Trace, given: Mapping[str, Any]) -> dict[str, float]:
    if trace.status != "ok":
        raise InvalidRequest(
            f"the request {quoted(trace.request_id)} was not answered ({trace.status}): there is nothing to score", param="request_id"
        )
    score = float(given["score"]) if "score" in given else float(bool(given["correct"]))
    answered = _answered(trace)
    by = trace.answered_by or (next(iter(answered)) if len(answered) == 1 else None)
    return {by: score} if by is not None and _is_own(trace) else {}


def _of_experts(trace: Trace, right: list[str]) -> dict[str, float]:
    answered = _answered(trace)
    considered = {scored.expert_id for scored in trace.decision.considered} if trace.decision is not None else set()
    known = [*answered, *sorted(considered - answered.keys())]
    for expert_id in right:
        if expert_id not in known:
            raise InvalidRequest(
                f"correct_expert: {quoted(expert_id)} was not considered for this request; {did_you_mean(expert_id, known)}",
                param="correct_expert",
            )
    return {expert_id: float(expert_id in right) for expert_id in {**answered, **dict.fromkeys(right)}}
