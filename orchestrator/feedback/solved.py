"""From what somebody said about an answer to a solved problem for the memory: what enters it, and why else nothing does. Pure.

The rule: nothing is kept that nobody vouched for. What a judge says is a model's word, so it never suffices; the system whose mechanism
this is (Xolver, arXiv 2506.14234) keeps what was answered as it was answered, and so learns from its own mistakes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domain.answers import without_reasoning
from domain.chat import text_of
from domain.feedback import Feedback
from domain.memory import MAX_PROBLEM_CHARS, MAX_SOLUTION_CHARS, SolvedProblem, tenant_of
from domain.trace import HASH_PREFIX, Trace

RIGHT_FROM = 0.9
"""Score from which an answer counts as right. What is shown as solved is taken up, so a fair answer is not good enough."""
WRONG_BELOW = 0.5
"""Score below which it counts as wrong. What lies between says neither."""


def found_right(trace: Trace, given: Mapping[str, Any]) -> bool | None:
    """What was *given* as feedback says of the answer that was told: whether it is right; None where it says neither."""
    if "correct" in given:
        return given["correct"] is True
    if "score" in given:
        score = float(given["score"])
        return True if score >= RIGHT_FROM else False if score < WRONG_BELOW else None
    # Whose words several experts' answers became is nobody's own: who was right says nothing of it.
    return trace.answered_by in given.get("correct_expert", ()) if trace.is_own else None


def may_write(trace: Trace) -> bool:
    """Whether the strategy, or the request, had asked that its answer be kept once it is known to be right."""
    memory = trace.decision.detail.get("memory") if trace.decision is not None else None
    return isinstance(memory, Mapping) and memory.get("writes") is True


def solved_of(trace: Trace, event: Feedback, *, now: float) -> SolvedProblem | None:
    """The problem of *trace* with its answer, which *event* says is right; None where that cannot be kept.

    Only a question that stands for itself is a problem: one message of the user, of text, before which nothing was said. Its texts have to
    be in the trace as they were said.
    """
    turns = [message for message in trace.messages or () if message.get("role") in {"user", "assistant", "tool", "function"}]
    if trace.status != "ok" or not trace.answer or len(turns) != 1 or turns[0].get("role") != "user" or not _is_text(turns[0]):
        return None
    question, answer = text_of(turns[0]).strip(), without_reasoning(trace.answer)
    if question.startswith(HASH_PREFIX) or answer.startswith(HASH_PREFIX):  # of a trace from when words were kept as hashes
        return None
    if not (0 < len(question) <= MAX_PROBLEM_CHARS and 0 < len(answer) <= MAX_SOLUTION_CHARS):
        return None
    return SolvedProblem(
        id="",
        tenant=tenant_of(trace.key_id),
        question=question,
        answer=answer,
        source="feedback",
        created_at=now,
        skills=tuple(skill for skill, _ in event.skills),
        expert_id=trace.answered_by,
        trace_id=trace.id,
        feedback_id=event.id,
    )


def _is_text(message: Mapping[str, Any]) -> bool:
    """Whether *message* holds nothing but text: an image is a part of its problem."""
    content = message.get("content")
    return isinstance(content, str) or (
        isinstance(content, list | tuple) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content)
    )
