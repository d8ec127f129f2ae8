"""An HTTP error of an OpenAI-compatible server to an ``ExpertError``: one table."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from domain.errors import (
    ExpertAuthFailed,
    ExpertContextTooLong,
    ExpertError,
    ExpertOverloaded,
    ExpertProtocolError,
    ExpertRejected,
    ExpertTimeout,
    ExpertUnreachable,
)
from domain.nesting import MAX_LEVELS, deeper_than
from domain.quoting import shortened
from workers.credentials import redacted

STATUS_ERRORS: Mapping[int, tuple[type[ExpertError], str]] = {
    401: (ExpertAuthFailed, "refused our credentials"),
    402: (ExpertAuthFailed, "wants payment before it answers"),
    403: (ExpertAuthFailed, "forbids our credentials to use this model"),
    404: (ExpertUnreachable, "is not served there under this model name"),
    408: (ExpertTimeout, "gave up waiting for the request"),
    413: (ExpertRejected, "says that the request is too large"),
    429: (ExpertOverloaded, "is overloaded"),
}
"""The statuses with a meaning of their own; the rest goes by its class."""

_CLASS_ERRORS: Mapping[int, tuple[type[ExpertError], str]] = {
    3: (ExpertProtocolError, "redirects elsewhere; its base_url must be the final address"),
    4: (ExpertRejected, "refused the request"),
    5: (ExpertProtocolError, "failed"),
}

_CONTEXT_CODES = frozenset({"context_length_exceeded", "context_window_exceeded", "exceed_context_size_error"})
# vLLM, OpenAI, llama.cpp, TGI, SGLang and Ollama, each in its own words.
_CONTEXT_TEXT = re.compile(
    r"maximum context length|context (?:length|window|size)|max_model_len|longer than the maximum model length"
    r"|inputs tokens \+ max_new_tokens|exceeds? the (?:model's )?(?:maximum|available) (?:context|length)",
    re.IGNORECASE,
)
LASTING = frozenset({404})
"""Statuses that no further attempt changes, although their class of error may be tried again: no such model stays so."""
_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_MAX_RETRY_AFTER_S = 86_400.0
"""Longer than that nobody's request waits, and it can be told on."""
SHOWN = 500
"""Characters of a server's own text that are passed on."""


def is_context_overflow(text: str, code: str | None = None) -> bool:
    """Whether a server means: this conversation is too long for me."""
    return code in _CONTEXT_CODES or bool(_CONTEXT_TEXT.search(text))


def context_overflow(who: str, said: str) -> ExpertContextTooLong:
    """In words by which clients know it, whatever the server's own are: LiteLLM's looks at nothing else."""
    return ExpertContextTooLong(
        f"the conversation is longer than the model's context length, says {who}: {said}", status=400, param="messages"
    )


def retry_after_of(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait by ``Retry-After`` (seconds or a date) or ``retry-after-ms``, a day at most; None when absent or unreadable."""
    milliseconds, after = headers.get("retry-after-ms"), headers.get("Retry-After")
    try:
        if milliseconds is not None:
            seconds = float(milliseconds) / 1000
        elif after is None:
            return None
        elif re.fullmatch(r"\s*\d+(\.\d*)?\s*", after):
            seconds = float(after)
        else:
            moment = parsedate_to_datetime(after)
            seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), _MAX_RETRY_AFTER_S) if math.isfinite(seconds) else None


@dataclass(frozen=True, slots=True)
class _Told:
    """What a server says of an error."""

    message: str
    code: str | None = None
    param: str | None = None


def _error_object(body: bytes, secret: str | None) -> _Told:
    """An error body in OpenAI's shape, with FastAPI's ``detail``, or plain text; without *secret*."""
    try:
        payload: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        payload = None
    if payload is None or deeper_than(payload, MAX_LEVELS):
        return _Told(_shown(" ".join(body.decode("utf-8", "replace").split()), secret))
    error = payload.get("error", payload) if isinstance(payload, Mapping) else payload
    if not isinstance(error, Mapping):
        return _Told(_shown(error, secret))
    message = error.get("message") or error.get("detail") or error
    code, param = error.get("code") or error.get("type"), error.get("param")
    shown_param = redacted(param, secret) if isinstance(param, str) and param else None
    return _Told(_shown(message, secret), code if isinstance(code, str) else None, shown_param)


def _shown(said: object, secret: str | None) -> str:
    return shortened(redacted(str(said), secret), SHOWN)


def error_of_response(
    who: str, status: int, body: bytes, headers: Mapping[str, str], *, now: datetime | None = None, secret: str | None = None
) -> ExpertError:
    """The error that a response of *who* ("expert 'a'") with *status* (300 or more) stands for. *secret*, the key that it was sent,
    is not repeated."""
    told = _error_object(body, secret)
    said, code = told.message, told.code
    retry_after_s = retry_after_of(headers, now or datetime.now(UTC))
    if 400 <= status < 500 and is_context_overflow(said, code):
        return context_overflow(who, said)
    kind, what = STATUS_ERRORS.get(status) or _CLASS_ERRORS.get(status // 100) or (ExpertProtocolError, "answered strangely")
    if code in _QUOTA_CODES:  # a 429 that no waiting helps
        kind, what = ExpertAuthFailed, "has no quota left for our credentials"
    message = f"{who} {what} (HTTP {status}{': ' + said if said else ''})"
    param = told.param if issubclass(kind, ExpertRejected) else None
    return kind(message, status=status, retry_after_s=retry_after_s, retryable=False if status in LASTING else None, param=param)


def tells_error(payload: Mapping[str, Any]) -> bool:
    """Whether a body or stream event with status 200 carries an error."""
    return bool(payload.get("error")) or payload.get("object") == "error"


def error_of_event(who: str, payload: Mapping[str, Any], *, secret: str | None = None) -> ExpertError:
    """The error that *payload* tells."""
    error = payload.get("error") or payload
    code = error.get("code") if isinstance(error, Mapping) else None
    status = int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdigit()) else 500
    return error_of_response(who, status if 400 <= status < 600 else 500, orjson.dumps({"error": error}), {}, secret=secret)
