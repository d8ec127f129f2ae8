"""The log: a line for people, or a JSON object a line for programs, each with the id of the request that it was written for."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

from domain import errors

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that the code that runs works for, tasks that it began included."""
TRACE_ID: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""Of the distributed trace that it belongs to, where spans are exported."""
TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``; ``request_id`` and ``trace_id`` of the request
    that it is about, ``exception`` with its stack where there was one, ``process`` of several on one port."""

    def __init__(self, *, worker: int | None = None) -> None:
        """*worker* is the process's number among several of one service."""
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": REQUEST_ID.get(),
            "trace_id": TRACE_ID.get(),
            "worker": self._worker,
            "exception": self.formatException(record.exc_info) if record.exc_info else None,
        }
        known = {name: _storable(value) for name, value in told.items() if value is not None}
        return orjson.dumps(known).decode()


def is_json() -> bool:
    """Whether the log is for programs, so that nothing else may stand between its lines."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def without_words(error: errors.ConsiliumError) -> str:
    """*error* as the log tells it: an expert's failure by its code alone. The words are its server's, which may have put the prompt into
    them; they stand in the answer, and in the trace."""
    match error:
        case errors.AllExpertsFailed():
            named = "; ".join(f"{failure.expert_id}: {failure.code}" for failure in error.failures)
            return f"{error.code} ({named})"
        case errors.ExpertError():
            return error.code
        case _:
            return str(error)


def _storable(value: Any) -> Any:
    """*value* as JSON can hold it: half surrogate pairs, which a caller may send, become question marks."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
