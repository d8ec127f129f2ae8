"""How candidates are shown to who reads them: whose answers at all, as which text, and how much of each. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from domain.answers import without_reasoning
from domain.chat import ChatRequest, Message, text_of
from domain.experts import ExpertCard
from domain.nesting import MAX_LEVELS, deeper_than
from domain.plan import Candidate
from orchestrator.aggregation.fallback import is_answer
from orchestrator.aggregation.prompts import tool_calls_of

_CUT = " […] "
_MIN_SHOWN = 40
"""Letters of a candidate that are shown in any case: fewer say nothing."""
_OVERHEAD = 120
"""Letters of the marks and titles around one candidate."""
_ANSWER_SHARE = 0.25
"""Of a context that is left for the answer where the request does not bound it."""


def wants_json(request: ChatRequest) -> bool:
    """Whether the answer has to be JSON."""
    response_format = request.params.get("response_format")
    return isinstance(response_format, dict) and response_format.get("type") in {"json_object", "json_schema"}


def read_json(text: str) -> Any:
    """*text* as JSON. Raises ``ValueError`` where it is none, or is nested too deep to be written again: an expert may say anything."""
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep to be read") from error
    if deeper_than(found, MAX_LEVELS):
        raise ValueError(f"nested more than {MAX_LEVELS} levels deep")
    return found


def is_json(text: str) -> bool:
    try:
        read_json(text)
    except ValueError:
        return False
    return True


def fits(request: ChatRequest, candidate: Candidate) -> bool:
    """Whether *candidate* may be told as the answer: it says something, and is JSON where that was asked."""
    if not is_answer(candidate):
        return False
    return not wants_json(request) or bool(tool_calls_of(candidate)) or all(is_json(choice.text) for choice in candidate.choices)


def fitting(request: ChatRequest, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those of *candidates* that fit; all of them where none does."""
    return [candidate for candidate in candidates if fits(request, candidate)] or list(candidates)


def shown_text(text: str) -> str:
    """*text* as others may see it: its reasoning is its own."""
    return without_reasoning(text)


def room_for(card: ExpertCard, request: ChatRequest, messages: Sequence[Message], instructions: str = "") -> int:
    """Letters that *card*'s context has for material, beside the conversation, the *instructions* and the answer."""
    asked = request.params.get("max_completion_tokens") or request.params.get("max_tokens")
    answer = asked if isinstance(asked, int) else int(card.context_length * _ANSWER_SHARE)
    spoken = sum(len(text_of(message)) for message in messages) + len(instructions)
    return int((card.context_length - answer) * card.chars_per_token) - spoken


def trimmed(texts: Sequence[str], room: int) -> tuple[list[str], list[int]]:
    """*texts* within *room* letters together, and which of them (by position) were cut.

    Fairly: short ones stay whole, and the long ones share what they leave. Of a text that is cut the beginning and, twice as long, the
    end stay: that is where answers stand.
    """
    left, shares = max(0, room - _OVERHEAD * len(texts)), [0] * len(texts)
    for rank, position in enumerate(sorted(range(len(texts)), key=lambda position: len(texts[position]))):
        shares[position] = max(_MIN_SHOWN, min(len(texts[position]), left // (len(texts) - rank)))
        left = max(0, left - shares[position])
    cut = [position for position, text in enumerate(texts) if len(text) > shares[position]]
    return [_cut(text, shares[position]) if position in cut else text for position, text in enumerate(texts)], cut


def _cut(text: str, length: int) -> str:
    kept = length - len(_CUT)
    return f"{text[: kept // 3]}{_CUT}{text[len(text) - (kept - kept // 3) :]}"


def told_cut(names: Sequence[str], before: Sequence[str], after: Sequence[str], cut: Sequence[int], reader: str) -> str:
    """What was cut, for the trace; "" when nothing was."""
    if not cut:
        return ""
    told = ", ".join(f"{names[position]} from {len(before[position])} to {len(after[position])} letters" for position in cut)
    return f"; cut to fit the context of {reader}: {told}"
