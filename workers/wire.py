"""OpenAI's response shapes to the domain's values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from domain.chat import Choice, ChoiceDelta, Chunk, Usage
from domain.errors import ExpertProtocolError
from domain.nesting import MAX_LEVELS, deeper_than
from domain.plan import Candidate, ExpertCall

_ENVELOPE = frozenset({"id", "object", "created", "model", "choices", "usage"})
"""Top-level fields that the service writes itself."""
_COUNTS = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
_CHOICE = frozenset({"index", "message", "delta", "finish_reason", "logprobs"})
"""Fields of a usage and of a choice that have a place of their own; all others are passed on."""


def request_body(call: ExpertCall, *, stream: bool) -> dict[str, Any]:
    """What goes to the expert: the caller's fields, over them the card's ``extra_body``, over them what makes the call."""
    body: dict[str, Any] = {**call.params, **call.expert.extra_body}
    options = body.pop("stream_options", None)
    body |= {"model": call.expert.model, "messages": [dict(message) for message in call.messages]}
    if stream:
        given = options if isinstance(options, Mapping) else {}
        body |= {"stream": True, "stream_options": {**given, "include_usage": True}}
    else:
        body.pop("stream", None)
    return body


def usage_of(value: object) -> Usage | None:
    """Tokens told by the expert; None when it told none."""
    if not isinstance(value, dict):
        return None
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens")
    details = _others(value, _COUNTS)
    return Usage(prompt if isinstance(prompt, int) else 0, completion if isinstance(completion, int) else 0, details)


def _others(value: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    if value.keys() <= known:  # nearly always, and seen at once
        return {}
    return {key: part for key, part in value.items() if key not in known and part is not None}


def _protocol_error(expert_id: str, found: str) -> ExpertProtocolError:
    return ExpertProtocolError(f"expert {expert_id!r} did not answer in OpenAI's shape: {found}")


def bounded(payload: Any, who: str) -> Any:
    """*payload*, unless it is nested too deep to be passed on: then ``ExpertProtocolError``."""
    if deeper_than(payload, MAX_LEVELS):
        msg = f"{who} answered JSON that is nested more than {MAX_LEVELS} levels deep"
        raise ExpertProtocolError(msg)
    return payload


def candidate_of(payload: object, expert_id: str, *, shape: Callable[[Choice], Choice] = lambda choice: choice) -> Candidate:
    """A chat completion as a candidate, each choice as *shape* makes it. Raises ``ExpertProtocolError`` when it is none."""
    if not isinstance(payload, dict):
        raise _protocol_error(expert_id, f"the response is {type(payload).__name__}, not an object")
    choices = payload.get("choices")
    if not isinstance(choices, list) or not choices:
        raise _protocol_error(expert_id, "it has no choices")
    return Candidate(
        expert_id=expert_id,
        choices=tuple(shape(_choice(choice, position, expert_id)) for position, choice in enumerate(choices)),
        usage=usage_of(payload.get("usage")) or Usage(),
        extra=_others(payload, _ENVELOPE),
    )


def _choice(value: object, position: int, expert_id: str) -> Choice:
    if not isinstance(value, dict) or not isinstance(message := value.get("message"), dict):
        raise _protocol_error(expert_id, f"choice {position} has no message")
    if "tool_calls" in message:
        _require_calls(message, position, expert_id)
    index = value.get("index")
    return Choice(
        message={key: part for key, part in message.items() if part is not None or key == "content"},
        index=index if isinstance(index, int) else position,
        finish_reason=value.get("finish_reason"),
        logprobs=value.get("logprobs"),
        extra=_others(value, _CHOICE),
    )


def _require_calls(message: Mapping[str, Any], position: int, expert_id: str) -> None:
    """Whoever reads tool calls takes each for an object."""
    calls = message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise _protocol_error(expert_id, f"the tool calls of choice {position} are no list of objects")


def chunk_of(payload: object, expert_id: str) -> Chunk:
    """One event of a stream. Raises ``ExpertProtocolError`` when it is not a chunk."""
    if not isinstance(payload, dict):
        raise _protocol_error(expert_id, f"an event of the stream is {type(payload).__name__}, not an object")
    choices = payload.get("choices")
    if choices is None:
        choices = []
    if not isinstance(choices, list):
        raise _protocol_error(expert_id, "the choices of an event are no list")
    return Chunk(
        choices=tuple(_delta(choice, position, expert_id) for position, choice in enumerate(choices)),
        usage=usage_of(payload.get("usage")),
        extra=_others(payload, _ENVELOPE),
    )


def _delta(value: object, position: int, expert_id: str) -> ChoiceDelta:
    if not isinstance(value, dict):
        raise _protocol_error(expert_id, f"choice {position} of an event is no object")
    delta = value.get("delta")
    if delta is not None and not isinstance(delta, dict):
        raise _protocol_error(expert_id, f"the delta of choice {position} is no object")
    if delta and "tool_calls" in delta:
        _require_calls(delta, position, expert_id)
    index = value.get("index")
    return ChoiceDelta(
        delta={key: part for key, part in (delta or {}).items() if part is not None},
        index=index if isinstance(index, int) else position,
        finish_reason=value.get("finish_reason"),
        logprobs=value.get("logprobs"),
        extra=_others(value, _CHOICE),
    )
