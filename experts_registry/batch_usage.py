"""What a write adds to the tokens of a batch. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domain.batch import KeptCall, LineResult
from domain.chat import Usage
from domain.plan import Candidate

CallKey = tuple[int, int]
"""Number of the line and position of the call."""
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def call_usage(call: KeptCall) -> Usage:
    """The tokens alone: what a line took in detail is told by its answer."""
    if not isinstance(call.outcome, Candidate):
        return Usage()
    return Usage(call.outcome.usage.prompt_tokens, call.outcome.usage.completion_tokens)


def body_usage(body: Mapping[str, Any] | None) -> Usage:
    """What an answer's body says that it took; nothing where it says nothing."""
    told = (body or {}).get("usage")
    if not isinstance(told, Mapping):
        return Usage()
    details = {name: value for name, value in told.items() if name not in _COUNTS and value is not None}
    return Usage(told.get("prompt_tokens") or 0, told.get("completion_tokens") or 0, details)


def gained(over: Mapping[int, LineResult], new: Mapping[CallKey, KeptCall], kept: Mapping[CallKey, Usage]) -> Usage:
    """What lines that are *over* now and *new* calls add to a batch that counts the *kept* calls already.

    The tokens of a call count as soon as it is kept, so that a budget sees them; those of an answer beyond its line's kept calls
    when the line is over.
    """
    of_new, of_kept = _by_line({key: call_usage(call) for key, call in new.items()}), _by_line(kept)
    total = Usage()
    for number in of_new.keys() | over.keys():
        fresh = of_new.get(number, Usage())
        told = body_usage(over[number].body) if number in over else Usage()
        before = of_kept.get(number, Usage())
        total += Usage(
            max(fresh.prompt_tokens, told.prompt_tokens - before.prompt_tokens),
            max(fresh.completion_tokens, told.completion_tokens - before.completion_tokens),
            told.details,
        )
    return total


def _by_line(calls: Mapping[CallKey, Usage]) -> dict[int, Usage]:
    lines: dict[int, Usage] = {}
    for (number, _), usage in calls.items():
        lines[number] = lines.get(number, Usage()) + usage
    return lines
