"""A log for programs: a JSON object a line, with the request it is about."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from typing import Any

import pytest

from api.logs import REQUEST_ID, TRACE_ID, JsonFormatter, is_json, without_words
from domain.errors import AllExpertsFailed, ExpertProtocolError, FailureSummary, StorageError

SECRET = "what the caller asked"


def written(message: str, *arguments: Any, worker: int | None = None, exc_info: Any = None) -> dict[str, Any]:
    record = logging.LogRecord("workers.retry", logging.WARNING, "retry.py", 1, message, arguments, exc_info)
    line = JsonFormatter(worker=worker).format(record)
    assert "\n" not in line
    told: dict[str, Any] = json.loads(line)
    return told


def test_a_line_says_when_who_and_what() -> None:
    told = written("expert %s failed", "a")

    assert datetime.fromisoformat(told.pop("time")).tzinfo is not None
    assert told == {"level": "warning", "logger": "workers.retry", "message": "expert a failed"}


def test_a_line_bears_the_request_that_it_is_about() -> None:
    request, trace = REQUEST_ID.set("req-1"), TRACE_ID.set("0af7651916cd43dd8448eb211c80319c")
    try:
        told = written("x", worker=2)
    finally:
        REQUEST_ID.reset(request)
        TRACE_ID.reset(trace)

    assert (told["request_id"], told["trace_id"], told["worker"]) == ("req-1", "0af7651916cd43dd8448eb211c80319c", 2)


def test_a_stack_is_a_part_of_its_line() -> None:
    try:
        raise ZeroDivisionError("division by zero")
    except ZeroDivisionError as error:
        told = written("broken", exc_info=(type(error), error, error.__traceback__))

    assert told["message"] == "broken"
    assert told["exception"].endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize("text", ["two\nlines", "half a pair: \ud800", '"quoted"', "\x00"])
def test_whatever_is_logged_stays_one_line_of_json(text: str) -> None:
    assert written("%s", text)["message"] == text.replace("\ud800", "?")


def test_experts_failures_are_told_by_their_codes() -> None:
    """Their words are their servers', which may have put the prompt into them."""
    failed = AllExpertsFailed([FailureSummary("a", "expert_timeout", SECRET), FailureSummary("b", "expert_protocol_error", SECRET)])

    assert without_words(failed) == "all_experts_failed (a: expert_timeout; b: expert_protocol_error)"
    assert without_words(ExpertProtocolError(SECRET)) == "expert_protocol_error"
    assert without_words(StorageError("the database is locked")) == "the database is locked"


def test_it_is_known_whether_the_log_is_for_programs() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    assert not is_json()
    logging.getLogger().addHandler(handler)
    try:
        assert is_json()
    finally:
        logging.getLogger().removeHandler(handler)
