"""What was said in a request, kept so that it can be compared and not read."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

from domain.trace import Trace

PREFIX = "hmac-sha256:"
"""Before what stands in the place of a text."""


def content_key(admin_key: str) -> bytes:
    """What texts are hashed with. A plain hash of a short prompt would be found by trying; this needs the key."""
    return hmac.digest(admin_key.encode("utf-8", "surrogateescape"), b"consilium contents of traces", "sha256")


def hashed(trace: Trace, key: bytes) -> Trace:
    """*trace* with a hash in the place of every text of the conversation: equal texts have equal ones."""

    def of(value: Any) -> str | None:
        if value is None:
            return None
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
        return PREFIX + hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def told(message: Any) -> dict[str, Any]:
        rest = {name: value for name, value in message.items() if name not in {"role", "content"}}
        return {"role": message.get("role"), "content": of(message.get("content")), **({"rest": of(rest)} if rest else {})}

    return replace(
        trace,
        messages=None if trace.messages is None else tuple(told(message) for message in trace.messages),
        answer=of(trace.answer),
        calls=tuple(replace(call, text=of(call.text)) for call in trace.calls),
    )
