"""Which distributed trace a request belongs to, as W3C Trace Context tells it (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from domain.random_ids import random_id

MAX_STATE_CHARS = 512
"""Longest ``tracestate`` that is passed on: what the recommendation asks for at least. A longer one is dropped whole, as it allows."""
ROUTING_SPAN = "routing"
"""The span that the router's own calls hang below: named, since they are made before it is known."""
_TRACE_DIGITS, _SPAN_DIGITS = 32, 16
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01
_PRINTABLE = re.compile(r"[\x20-\x7e]+")
_RATIO_DIGITS = 16
_RATIO_IDS: int = 16**_RATIO_DIGITS


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span of a distributed trace."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    parent_id: str | None = None
    """The span above it; None at the top."""
    sampled: bool = True
    """Whether the spans of this trace are kept."""
    state: str | None = None
    """``tracestate``: what other systems said, passed on as it came."""

    @property
    def traceparent(self) -> str:
        """The header for whoever is to continue below this span."""
        return f"00-{self.trace_id}-{self.span_id}-{_SAMPLED if self.sampled else 0:02x}"

    @property
    def headers(self) -> dict[str, str]:
        """``traceparent``, and ``tracestate`` where there is one."""
        return {"traceparent": self.traceparent} if self.state is None else {"traceparent": self.traceparent, "tracestate": self.state}

    def child(self) -> TraceContext:
        """A new span below this one."""
        return TraceContext(self.trace_id, _span_id(), self.span_id, self.sampled, self.state)

    def named_child(self, name: str) -> TraceContext:
        """The span *name* below this one: the same at every call, so that nobody has to keep it until it is told."""
        digest = hashlib.blake2b(f"{self.trace_id}-{self.span_id}-{name}".encode(), digest_size=_SPAN_DIGITS // 2)
        return TraceContext(self.trace_id, digest.hexdigest(), self.span_id, self.sampled, self.state)


_TOP = TraceContext("", "")


def begun(traceparent: str | None, tracestate: str | None, *, ratio: float) -> TraceContext:
    """The span of a request that came with these headers: below the caller's span, and kept as the caller says; without a caller's span
    that can be read, at the top of a trace of its own, of which the share *ratio* is kept."""
    found = None if traceparent is None else _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None or (found[1] == "00" and found[5] is not None):
        trace_id = random_id()
        return TraceContext(trace_id, _span_id(), sampled=is_sampled(trace_id, ratio))
    state = tracestate if tracestate and len(tracestate) <= MAX_STATE_CHARS and _PRINTABLE.fullmatch(tracestate) else None
    return TraceContext(found[2], _span_id(), found[3], bool(int(found[4], 16) & _SAMPLED), state)


def named(name: str, *, ratio: float) -> TraceContext:
    """The span at the top of the trace that belongs to *name*, of which the share *ratio* is kept: the same in every process, so that work
    which another process goes on with stays one trace and nothing has to be kept for it. *name* comes once."""
    digest = hashlib.blake2b(name.encode(), digest_size=_TRACE_DIGITS // 2).hexdigest()
    return TraceContext(digest, _TOP.named_child(name).span_id, sampled=is_sampled(digest, ratio))


def is_sampled(trace_id: str, ratio: float) -> bool:
    """Whether a trace is among the share *ratio*, in [0, 1], of those that are kept. It goes by the id's last half, as OpenTelemetry's
    sampler does: services with the same ratio keep the same traces."""
    return int(trace_id[-_RATIO_DIGITS:], 16) < round(ratio * _RATIO_IDS)


def _span_id() -> str:
    return random_id()[:_SPAN_DIGITS]
