"""What the pipeline gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.chat import Choice, Usage
from domain.made_often import made_often
from domain.trace import Trace


@made_often
@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer. ``usage`` is the sum over all calls; ``trace`` says how it came about."""

    request_id: str
    model: str
    """As asked."""
    choices: tuple[Choice, ...]
    usage: Usage
    trace: Trace
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Other top-level fields of the answering expert's response."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Something happened while no token can flow yet: sent as an SSE comment, so that nothing times out."""

    text: str
