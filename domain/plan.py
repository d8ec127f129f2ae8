"""What a routing decision leads to, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from domain.chat import Choice, Message, Usage
from domain.deadline import Deadline
from domain.errors import CallRefused, ExpertUnavailable
from domain.experts import ExpertCard
from domain.made_often import made_often
from domain.trace_context import TraceContext


class CallRole(StrEnum):
    CANDIDATE = "candidate"
    AGGREGATOR = "aggregator"
    JUDGE = "judge"
    ANNOTATOR = "annotator"
    STEP = "step"
    """What it writes is for other experts, never told as an answer: drafts, workspaces, plans, evidence."""


@made_often
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
    again: Callable[[], bool] | None = field(default=None, compare=False, repr=False)
    """Asked before the call is tried again: whether the request's budget has room for one more attempt, which it takes. None: always."""
    context: TraceContext | None = field(default=None, compare=False, repr=False)
    """The call's span, which the expert's server is told to continue below; None: it is told nothing."""

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be sent a second time, here or to another expert: an answer that the provider is to store would be stored
        twice."""
        return not self.params.get("store")


@made_often
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
        """Whether the expert was called at all: not while its circuit is open, nor where the request's budget had no room."""
        return self.code not in (ExpertUnavailable.code, CallRefused.code)


Outcome = Candidate | ExpertFailure
