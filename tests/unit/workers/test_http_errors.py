"""Each HTTP error and each exception of a client library has one meaning."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime

import aiohttp
import litellm.exceptions
import pytest
from aiohttp import client_exceptions

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
from workers import aiohttp_errors, litellm_errors
from workers.http_errors import error_of_event, error_of_response, retry_after_of, tells_error

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, ExpertProtocolError),
        (400, ExpertRejected),
        (401, ExpertAuthFailed),
        (402, ExpertAuthFailed),
        (403, ExpertAuthFailed),
        (404, ExpertUnreachable),
        (408, ExpertTimeout),
        (409, ExpertRejected),
        (413, ExpertRejected),
        (422, ExpertRejected),
        (429, ExpertOverloaded),
        (500, ExpertProtocolError),
        (502, ExpertProtocolError),
        (503, ExpertProtocolError),
        (504, ExpertProtocolError),
        (999, ExpertProtocolError),
    ],
)
def test_each_status_has_its_error(status: int, expected: type[ExpertError]) -> None:
    error = error_of_response("expert 'e1'", status, b'{"error": {"message": "because"}}', {})

    assert type(error) is expected
    assert error.status == status
    assert "'e1'" in error.message
    assert "because" in error.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"object":"error","message":"This model\'s maximum context length is 512 tokens. However, you requested 600","code":400}',
        b'{"error":{"message":"too many tokens","code":"context_length_exceeded"}}',
        b'{"error":{"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}',
        b'{"error":"`inputs` tokens + `max_new_tokens` must be <= 1024. Given: inputs tokens + max_new_tokens"}',
        b'{"detail":"The input (600 tokens) is longer than the model\'s context length (512 tokens)."}',
    ],
)
def test_context_overflow_is_recognised_in_every_server_s_words(body: bytes) -> None:
    error = error_of_response("expert 'e1'", 400, body, {})

    assert type(error) is ExpertContextTooLong
    assert error.message.startswith("the conversation is longer than the model's context length, says expert 'e1'")


def test_no_quota_is_no_reason_to_wait() -> None:
    error = error_of_response("expert 'e1'", 429, b'{"error":{"message":"pay","code":"insufficient_quota"}}', {})

    assert type(error) is ExpertAuthFailed
    assert not error.retryable


@pytest.mark.parametrize("body", [b"", b"<html>\n Bad   gateway</html>", b'"text"', b"[1]", b"\xff\xfe", b'{"error": null}'])
def test_any_body_is_survived(body: bytes) -> None:
    assert type(error_of_response("expert 'e1'", 500, body, {})) is ExpertProtocolError


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "Retry-After": "7"}, 0.25),
        ({"Retry-After": "Thu, 01 Jan 2026 00:01:00 GMT"}, 60.0),
        ({"Retry-After": "Wed, 31 Dec 2025 00:00:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "9" * 20}, 86_400.0),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86_400.0),
        ({"retry-after-ms": "inf"}, None),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after-ms": "1e300"}, 86_400.0),
        ({"retry-after-ms": "-5"}, 0.0),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_of(headers, NOW) == seconds


def test_an_error_in_a_stream_has_the_status_that_it_names() -> None:
    overloaded = error_of_event("expert 'e1'", {"error": {"message": "busy", "code": 429}})
    died = error_of_event("expert 'e1'", {"object": "error", "message": "died", "code": None})

    assert type(overloaded) is ExpertOverloaded
    assert type(died) is ExpertProtocolError
    assert tells_error({"error": {"message": "busy"}})
    assert tells_error({"object": "error", "message": "died"})
    assert not tells_error({"choices": [], "error": None})


def _subclasses(module: object, base: type) -> list[type]:
    return [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, base)]


def test_every_exception_of_aiohttp_s_client_has_a_rule() -> None:
    for kind in _subclasses(client_exceptions, aiohttp.ClientError):
        for mid_answer in (False, True):
            assert issubclass(aiohttp_errors.rule_for(kind, mid_answer=mid_answer)[0], ExpertError), kind


def test_a_connection_lost_in_the_middle_is_half_an_answer() -> None:
    lost = aiohttp.ServerDisconnectedError

    assert aiohttp_errors.rule_for(lost)[0] is ExpertUnreachable
    assert aiohttp_errors.rule_for(lost, mid_answer=True)[0] is ExpertProtocolError
    assert aiohttp_errors.rule_for(aiohttp.ConnectionTimeoutError)[0] is ExpertTimeout


def test_every_exception_of_litellm_has_a_translation() -> None:
    """A new version of LiteLLM that brings another one fails here."""
    own = {kind.__name__ for kind in _subclasses(litellm.exceptions, Exception) if kind.__module__ == "litellm.exceptions"}

    assert own == set(litellm_errors.TRANSLATIONS)


def test_an_unknown_exception_is_the_expert_s_failure() -> None:
    assert type(litellm_errors.expert_error_of(ValueError("?"), "e1")) is ExpertProtocolError


def test_an_error_nested_too_deep_is_told_as_text() -> None:
    body = b'{"error": ' + b"[" * 1000 + b"]" * 1000 + b"}"

    assert "[[[[" in error_of_response("expert 'e1'", 400, body, {}).message
