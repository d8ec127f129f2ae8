"""Outcomes of calls and routes of lines as JSON text and back, without loss. Pure.

What JSON cannot hold is what no answer on the wire can either: numbers that are not finite become null, tuples lists.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from domain.batch import LineRoute, Waves
from domain.cascade import CascadeRule
from domain.chat import Choice, Usage
from domain.memory import Demonstration, Recollection
from domain.plan import Candidate, ExpertFailure, Outcome
from domain.skills import SkillMatch
from experts_registry.database import JsonText

_COMPACT = (",", ":")


def to_json(value: object) -> JsonText:
    """*value* as text that any JSON column can hold: ASCII, so that half surrogate pairs and NUL come back as they were."""
    try:
        return JsonText(json.dumps(value, allow_nan=False, separators=_COMPACT, default=_plain))
    except ValueError:
        return JsonText(json.dumps(_finite(value), allow_nan=False, separators=_COMPACT))


def outcome_to_object(outcome: Outcome) -> dict[str, Any]:
    """What is as usual is left out: there are several of them for each line."""
    if isinstance(outcome, ExpertFailure):
        failure: dict[str, Any] = {"expert": outcome.expert_id, "code": outcome.code, "message": outcome.message}
        return failure | _given(
            latency_s=outcome.latency_s or None,
            not_at_fault=not outcome.expert_at_fault or None,
            retry_after_s=outcome.retry_after_s,
            param=outcome.param,
        )
    return {"expert": outcome.expert_id, "choices": [_choice_to_object(choice) for choice in outcome.choices]} | _given(
        usage=_usage_to_object(outcome.usage) or None,
        latency_s=outcome.latency_s or None,
        extra=outcome.extra or None,
        num_retries=outcome.num_retries or None,
    )


def outcome_from_object(found: Mapping[str, Any]) -> Outcome:
    """What ``outcome_to_object`` was given."""
    if "choices" not in found:
        return ExpertFailure(
            expert_id=found["expert"],
            code=found["code"],
            message=found["message"],
            latency_s=found.get("latency_s", 0.0),
            expert_at_fault=not found.get("not_at_fault", False),
            retry_after_s=found.get("retry_after_s"),
            param=found.get("param"),
        )
    return Candidate(
        expert_id=found["expert"],
        choices=tuple(_choice_from_object(choice) for choice in found["choices"]),
        usage=_usage_from_object(found.get("usage", {})),
        latency_s=found.get("latency_s", 0.0),
        extra=found.get("extra", {}),
        num_retries=found.get("num_retries", 0),
    )


def route_to_object(route: LineRoute) -> dict[str, Any]:
    return {"router": route.router, "selected": route.selected, "scores": route.scores} | _given(
        aggregator=route.aggregator,
        strategy=route.strategy,
        reason=route.reason or None,
        skills=[[match.skill, match.similarity, match.weight] for match in route.skills] or None,
        category=route.category,
        fallback=route.fallback or None,
        calls=[outcome_to_object(outcome) for outcome in route.calls] or None,
        cascade=None if route.cascade is None else asdict(route.cascade),
        waves=None if route.waves is None else asdict(route.waves),
    )


def route_from_object(found: Mapping[str, Any]) -> LineRoute:
    return LineRoute(
        router=found["router"],
        selected=tuple(found["selected"]),
        scores=tuple(found["scores"]),
        aggregator=found.get("aggregator"),
        strategy=found.get("strategy"),
        reason=found.get("reason", ""),
        skills=tuple(SkillMatch(*match) for match in found.get("skills", ())),
        category=found.get("category"),
        fallback=found.get("fallback", False),
        calls=tuple(outcome_from_object(outcome) for outcome in found.get("calls", ())),
        cascade=CascadeRule(**found["cascade"]) if "cascade" in found else None,
        waves=_waves_from_object(found["waves"]) if "waves" in found else None,
    )


def recollection_to_object(recalled: Recollection) -> dict[str, Any]:
    shown = [[one.problem_id, one.question, one.answer, one.similarity] for one in recalled.shown]
    return _given(shown=shown or None, writes=recalled.writes or None, why=recalled.why or None)


def recollection_from_object(found: Mapping[str, Any]) -> Recollection:
    shown = tuple(Demonstration(*one) for one in found.get("shown", ()))
    return Recollection(shown, found.get("writes", False), found.get("why", ""))


def _waves_from_object(found: Mapping[str, Any]) -> Waves:
    return Waves(found["max_calls"], tuple(found["first"]), tuple(found["others"]))


def _choice_to_object(choice: Choice) -> dict[str, Any]:
    found: dict[str, Any] = {"message": choice.message, "finish_reason": choice.finish_reason}
    return found | _given(index=choice.index or None, logprobs=choice.logprobs, extra=choice.extra or None)


def _choice_from_object(found: Mapping[str, Any]) -> Choice:
    return Choice(
        message=found["message"],
        index=found.get("index", 0),
        finish_reason=found["finish_reason"],
        logprobs=found.get("logprobs"),
        extra=found.get("extra", {}),
    )


def _usage_to_object(usage: Usage) -> dict[str, Any]:
    return _given(prompt=usage.prompt_tokens or None, completion=usage.completion_tokens or None, details=usage.details or None)


def _usage_from_object(found: Mapping[str, Any]) -> Usage:
    return Usage(found.get("prompt", 0), found.get("completion", 0), found.get("details", {}))


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _plain(value: object) -> object:
    """A mapping or a number of another library's; ``json`` asks for what it does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    as_python = getattr(value, "item", None)
    if callable(as_python):  # NumPy's scalars, which scores may be
        return as_python()
    raise TypeError(f"a {type(value).__name__} is no JSON value")


def _finite(value: object) -> object:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case str() | int() | None:
            return value
        case Mapping():
            return {key: _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case _:
            return _finite(_plain(value))
