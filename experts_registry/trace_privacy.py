"""What was said in a request, kept so that it can be compared and not read."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from domain.plan import CallRole
from domain.routing import RoutingDecision
from domain.trace import HASH_PREFIX, Trace

NOT_KEPT = "not kept: it may hold what an expert answered to the router"
"""In the place of a reason, where texts are not kept at all."""
_SAID = frozenset({"instruction", "notes"})
"""Of a decision's detail: what a model wrote for the router, and what the router says of that."""


def content_key(admin_key: str) -> bytes:
    """What texts are hashed with. A plain hash of a short prompt would be found by trying; this needs the key."""
    return hmac.digest(admin_key.encode("utf-8", "surrogateescape"), b"consilium contents of traces", "sha256")


def without_texts(trace: Trace) -> Trace:
    """*trace*, of whose conversation nothing is kept, without what experts answered to the router."""
    decision = trace.decision
    if decision is None or not _router_asked(trace):
        return trace
    return replace(trace, decision=_told(decision, lambda value: None if value is None else NOT_KEPT))


def _router_asked(trace: Trace) -> bool:
    """Whether the router made calls of its own, whose answers may be in its reason and detail. No router repeats what a user wrote."""
    return bool(trace.decision and trace.decision.calls) or any(call.role is CallRole.ANNOTATOR for call in trace.calls)


def _told(decision: RoutingDecision, of: Callable[[Any], str | None]) -> RoutingDecision:
    """*decision* with what *of* makes of its texts in their place."""

    def told(detail: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: of(value) if name in _SAID and value else told(value) if isinstance(value, Mapping) else value
            for name, value in detail.items()
        }

    return decision.altered(reason=of(decision.reason) or "", calls=()).detailed_by(lambda: told(decision.detail))


def hashed(trace: Trace, key: bytes) -> Trace:
    """*trace* with a hash in the place of every text of the conversation, and of what experts answered to the router: equal texts have
    equal ones."""

    def of(value: Any) -> str | None:
        if value is None:
            return None
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
        return HASH_PREFIX + hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def told(message: Any) -> dict[str, Any]:
        rest = {name: value for name, value in message.items() if name not in {"role", "content"}}
        return {"role": message.get("role"), "content": of(message.get("content")), **({"rest": of(rest)} if rest else {})}

    decision = trace.decision
    return replace(
        trace,
        decision=_told(decision, of) if decision is not None and _router_asked(trace) else decision,
        messages=None if trace.messages is None else tuple(told(message) for message in trace.messages),
        answer=of(trace.answer),
        calls=tuple(replace(call, text=of(call.text)) for call in trace.calls),
    )
