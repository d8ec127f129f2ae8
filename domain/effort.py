"""How much work a request is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

EffortName = Literal["none", "low", "medium", "high"]
EFFORT_NAMES: tuple[str, ...] = get_args(EffortName)


@dataclass(frozen=True, slots=True)
class EffortLevel:
    """What one level changes about a strategy. None: nothing."""

    k: int | None = None
    """Experts: at most so many where the strategy asks more; so many where it asks fewer, but more than one."""
    max_calls: int | None = None
    """Within the strategy's."""
    max_tokens: int | None = None
    """Of each answer; what the request or the card bounds more tightly stays so."""
    thinking: str | None = None
    """How much experts think before they answer, one of ``EFFORT_NAMES``; those whose cards say how it is switched."""
    mode: str | None = None
    """How the experts work together, instead of the strategy's mode."""


@dataclass(frozen=True, slots=True)
class EffortRule:
    """How a strategy takes efforts."""

    default: str | None = None
    """The level of a request that names none. None: the strategy as it stands."""
    from_reasoning_effort: bool = False
    """Whether OpenAI's ``reasoning_effort`` chooses the level; otherwise it goes to the experts as it came."""
    levels: Mapping[str, EffortLevel] = field(default_factory=dict)
    """Instead of the built-in levels of the same names."""

    @property
    def chooses(self) -> bool:
        """Whether a request may have a level that its options do not name."""
        return self.default is not None or self.from_reasoning_effort


AS_IT_STANDS = EffortRule()


@dataclass(frozen=True, slots=True)
class Effort:
    """The level of one request."""

    name: str
    by: str
    """Who chose it: ``request``, ``reasoning_effort`` or ``strategy``."""
    level: EffortLevel
