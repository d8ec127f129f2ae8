"""How much work a request is worth: levels that set how many experts are asked, how long they answer and how much they think. Pure.

After "Think Only When You Need" (arXiv 2505.14631), where a model decides whether to think; here the caller does, or the strategy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from domain.chat import ChatRequest
from domain.effort import EFFORT_NAMES, Effort, EffortLevel
from domain.errors import InvalidRequest
from domain.experts import ExpertCard
from domain.quoting import quoted
from domain.routing import PickRule
from domain.strategy import DEFAULT_MODE, Strategy
from orchestrator.resolve import Target

LEVELS: Mapping[str, EffortLevel] = {
    "none": EffortLevel(k=1, max_tokens=512, thinking="none", mode=DEFAULT_MODE),
    "low": EffortLevel(k=2, max_calls=4, max_tokens=2048, thinking="low"),
    "medium": EffortLevel(),
    "high": EffortLevel(k=5, thinking="high"),
}
"""Where a strategy has no level of its own by that name."""
REASONING_EFFORT = "reasoning_effort"
"""OpenAI's request field."""
_AS_EFFORT: Mapping[str, str] = {**dict(zip(EFFORT_NAMES, EFFORT_NAMES, strict=True)), "minimal": "low", "xhigh": "high"}
"""Its values as levels."""
_TEMPLATE = "chat_template_kwargs"
_FLAGS = ("enable_thinking", "thinking")
"""What chat templates call the switch (Qwen3 and its kin; DeepSeek, Granite)."""


def with_effort(request: ChatRequest, target: Target) -> tuple[ChatRequest, Target]:
    """*request* with its level, and *target* with the strategy as the level changes it; both as they are where there is none.

    What the request says itself (``k``, ``mode``, ``max_tokens``, how much to think) stands over its level. Raises ``InvalidRequest``
    for an unknown level, and for a ``reasoning_effort`` that the strategy cannot read.
    """
    strategy, asked = target.strategy, request.options.effort
    if asked is None and not strategy.effort.chooses:
        return request, target
    name, by = _chosen(request, strategy)
    if name is None:
        return request, target
    level = strategy.effort.levels.get(name) or LEVELS[name]
    params = request.params
    if by == REASONING_EFFORT:  # the level says what experts are told of it: those that cannot think would refuse the field
        params = {field: value for field, value in params.items() if field != REASONING_EFFORT}
    return replace(request, params=params, effort=Effort(name, by, level)), replace(target, strategy=_at(level, strategy, request))


def thinking_params(card: ExpertCard, effort: Effort | None) -> dict[str, Any]:
    """What tells *card* how much to think. Its sampling defaults name the switch: who has none would refuse, or ignore, any."""
    thinking = None if effort is None else effort.level.thinking
    if thinking is None:
        return {}
    found: dict[str, Any] = {REASONING_EFFORT: thinking} if REASONING_EFFORT in card.sampling else {}
    flags = card.sampling.get(_TEMPLATE)
    if isinstance(flags, Mapping) and (named := [flag for flag in _FLAGS if flag in flags]):
        found[_TEMPLATE] = {**flags, **dict.fromkeys(named, thinking != "none")}
    return found


def told(effort: Effort) -> dict[str, Any]:
    """The level for the trace, in JSON values."""
    level = effort.level
    found = {"k": level.k, "max_calls": level.max_calls, "max_tokens": level.max_tokens, "thinking": level.thinking, "mode": level.mode}
    return {"level": effort.name, "by": effort.by, **{name: value for name, value in found.items() if value is not None}}


def _chosen(request: ChatRequest, strategy: Strategy) -> tuple[str | None, str]:
    """The level's name, and who chose it."""
    if (asked := request.options.effort) is not None:
        if asked not in EFFORT_NAMES:
            known = ", ".join(EFFORT_NAMES)
            raise InvalidRequest(f"consilium.effort must be one of {known}, not {quoted(asked)}", param="consilium.effort")
        return asked, "request"
    if strategy.effort.from_reasoning_effort and (wanted := request.params.get(REASONING_EFFORT)) is not None:
        if wanted not in _AS_EFFORT:
            known = ", ".join(_AS_EFFORT)
            raise InvalidRequest(f"{REASONING_EFFORT} must be one of {known}, not {quoted(str(wanted))}", param=REASONING_EFFORT)
        return _AS_EFFORT[wanted], REASONING_EFFORT
    return strategy.effort.default, "strategy"


def _at(level: EffortLevel, strategy: Strategy, request: ChatRequest) -> Strategy:
    changed: dict[str, Any] = {}
    if level.k is not None:
        changed["pick"] = _picked(strategy.pick, level.k)
        if level.k > strategy.pick.k:  # more than the strategy asks by itself are wanted
            changed["alone_from_accuracy"] = None
    if level.max_calls is not None:
        changed["max_calls"] = min(strategy.max_calls, level.max_calls)
    by_itself = request.options.mode is not None or request.options.mode_options is not None
    if level.mode is not None and level.mode != strategy.mode and not by_itself:
        changed |= {"mode": level.mode, "mode_options": {}}  # the other mode would not understand them
    return replace(strategy, **changed) if changed else strategy


def _picked(rule: PickRule, k: int) -> PickRule:
    """*rule* with *k*. A strategy of one expert stays one: it does not know what to do with several."""
    if k <= rule.k:
        return replace(rule, k=k)
    if rule.k == 1:
        return rule
    return replace(rule, kind="top_k" if rule.kind == "dynamic" else rule.kind, k=k)
