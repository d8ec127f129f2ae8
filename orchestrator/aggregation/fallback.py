"""What becomes of an aggregator's call that made no answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from domain.plan import Candidate, ExpertFailure, Outcome

ANSWER_FIELDS = ("tool_calls", "function_call", "refusal", "audio")
"""Fields of a message that answer without text."""


def says_something(message: Mapping[str, Any]) -> bool:
    """Whether *message*, or a piece of one, holds more than its role and reasoning."""
    content = message.get("content")
    return bool(content.strip() if isinstance(content, str) else content) or any(message.get(field) for field in ANSWER_FIELDS)


def is_answer(outcome: Outcome) -> bool:
    """Whether *outcome* can be told to the caller as an answer."""
    return isinstance(outcome, Candidate) and any(says_something(choice.message) for choice in outcome.choices)


def instead_of(outcome: Outcome | None, candidates: Sequence[Candidate]) -> tuple[Candidate, str]:
    """The candidate that is the answer where the aggregator's *outcome* (None: it was not called) is none, and why: the best-scored
    that says something.

    *candidates* are in the decision's order, best first.
    """
    chosen = next(filter(is_answer, candidates), candidates[0])
    match outcome:
        case None:
            what = "was not called"
        case Candidate():
            what = "answered nothing"
        case ExpertFailure():
            what = f"failed ({outcome.message})"
    return chosen, f"it {what}, so the best-scored candidate that answered stands in, {chosen.expert_id}"
