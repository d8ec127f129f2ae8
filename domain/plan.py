"""What a routing decision leads to, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from domain.chat import Choice, Message, Usage
from domain.deadline import Deadline
from domain.errors import ExpertUnavailable
from domain.experts import ExpertCard


class CallRole(StrEnum):
    CANDIDATE = "candidate"
    AGGREGATOR = "aggregator"
    JUDGE = "judge"
    ANNOTATOR = "annotator"


@dataclass(frozen=True, slots=True)
class ExpertCall:
    """One completion to run: everything that a worker needs."""

    expert: ExpertCard
    messages: tuple[Message, ...]
    params: Mapping[str, Any]
    """OpenAI fields, the card's sampling defaults already filled in."""
    deadline: Deadline
    request_id: str
    role: CallRole = CallRole.CANDIDATE
    on_progress: Callable[[str], None] | None = field(default=None, compare=False, repr=False)
    """Hears, in words for the caller, how the wait for the expert goes, while there is one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The candidates' calls, which run at once."""

    calls: tuple[ExpertCall, ...]
    deadline: Deadline


@dataclass(frozen=True, slots=True)
class Candidate:
    """One expert's finished answer."""

    expert_id: str
    choices: tuple[Choice, ...]
    usage: Usage = Usage()
    latency_s: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Other top-level fields of the expert's response (``system_fingerprint``, ``service_tier``)."""
    num_retries: int = 0

    @property
    def text(self) -> str:
        """The first choice's text, without reasoning."""
        return self.choices[0].text if self.choices else ""


@dataclass(frozen=True, slots=True)
class ExpertFailure:
    """One expert's failure, as data."""

    expert_id: str
    code: str
    message: str
    latency_s: float = 0.0
    expert_at_fault: bool = True
    retry_after_s: float | None = None
    param: str | None = None
    """The request field that the expert refused, when it named one."""

    @property
    def called(self) -> bool:
        """Whether the expert was called at all: not while its circuit is open."""
        return self.code != ExpertUnavailable.code


Outcome = Candidate | ExpertFailure
