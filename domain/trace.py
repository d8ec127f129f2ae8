"""The one record of a request, which every sink receives."""

from __future__ import annotations

from dataclasses import dataclass, field

from domain.chat import Message, Session, Usage
from domain.made_often import made_often
from domain.plan import CallRole
from domain.random_ids import ordered_id
from domain.routing import RoutingDecision
from domain.trace_context import TraceContext

HASH_PREFIX = "hmac-sha256:"
"""Before what stands in the place of a text, where traces keep no words."""


@made_often
@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call that was made, or skipped."""

    expert_id: str
    role: CallRole
    status: str
    """``ok``, ``error``, ``cancelled``, or ``skipped``: not called, because the expert's circuit was open."""
    latency_ms: float
    usage: Usage = Usage()
    error: str | None = None
    text: str | None = None
    """What the expert answered; only kept where prompts may be kept."""
    stage: int | None = None
    """Which stage of the mode it belongs to, from 1; None where there is one only."""
    confidence: float | None = None
    """How sure that expert's answer was, in [0, 1]; None where it was not judged."""
    note: str | None = None
    """What became of its stage, and why: accepted, the next expert was asked, nothing had changed."""
    started_ms: float | None = None
    """When it began, in milliseconds after the request did; None in traces from before this was kept."""
    first_token_ms: float | None = None
    """Of a streamed call: from its beginning to the first token of its answer."""
    span_id: str | None = None
    """Of its span, which its server was told to continue below; None where it was told none."""

    @property
    def error_code(self) -> str | None:
        """The error's code in the error tree; None without an error."""
        return None if self.error is None else self.error.partition(":")[0]


@made_often
@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds. ``overhead`` is the total minus the time spent waiting for experts."""

    route: float = 0.0
    experts: float = 0.0
    aggregate: float = 0.0
    total: float = 0.0
    overhead: float = 0.0
    first_token: float | None = None
    routed: float | None = None
    """When the routing decision was there, after the request's beginning; None where there was none, or it was made before."""


@made_often
@dataclass(frozen=True, slots=True)
class Trace:
    """What happened to one request."""

    request_id: str
    """As the caller chose it, so it may come again."""
    model: str
    strategy: str | None
    started_at: float
    """Seconds since the epoch."""
    status: str
    """``ok``, ``error`` or ``cancelled``."""
    decision: RoutingDecision | None = None
    calls: tuple[CallRecord, ...] = ()
    aggregator: str | None = None
    """How the answer was made: ``single``, an aggregator (``vote``, ``fuse:<expert>``) or a mode (``cascade:<expert>``); with
    `` (fallback)`` behind where the last call came to nothing."""
    aggregator_reason: str | None = None
    """Why so, for people: who agreed, by which measurement the fusing expert was chosen, what failed."""
    timings: Timings = Timings()
    usage: Usage = Usage()
    error_code: str | None = None
    error_message: str | None = None
    stream: bool = False
    session_id: str | None = None
    key_id: str | None = None
    """The stored API key that the request came with."""
    messages: tuple[Message, ...] | None = None
    answer: str | None = None
    answered_by: str | None = None
    """Whose words the answer is: the expert that was chosen, or that wrote it from the others'."""
    panel_changed_answer: bool | None = None
    """Whether the answer says something else than the best-scored candidate's, so that the others were not asked for nothing; None where
    there were no several."""
    is_own: bool | None = None
    """Whether these are its answer to the question itself; False where it wrote them from what others had said. None where nothing was
    answered, and in traces that were kept before this was."""
    sequential_tokens: int = 0
    """Answer tokens that were waited for one after the other; of calls that ran at once the longest counts."""
    context: TraceContext | None = None
    """The request's span in a distributed trace; None where spans are not exported."""
    id: str = field(default_factory=ordered_id)
    """Ours: nobody can write over the trace of another request."""

    @property
    def session(self) -> Session | None:
        """None for a request outside of any session."""
        return (self.key_id, self.session_id) if self.session_id else None

    @property
    def num_calls(self) -> int:
        """Calls that were made, by the router and for the answer."""
        return sum(call.status != "skipped" for call in self.calls)
