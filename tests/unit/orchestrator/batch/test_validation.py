"""What is said about a batch's input before anything of it runs."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.batch import BatchError, BatchErrorCode, BatchLine
from domain.errors import InvalidRequest
from orchestrator.batch.validation import InputLimits, InputReport, InputRequest, validate_input
from tests.fakes.batches import PATIENT

CHAT = "/v1/chat/completions"


def request(custom_id: Any = "r", **fields: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": "auto"}, **fields}


def file_of(*lines: dict[str, Any] | bytes) -> io.BytesIO:
    return io.BytesIO(b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines))


def validate(*lines: dict[str, Any] | bytes, **limits: int) -> InputReport:
    return validate_input(file_of(*lines), CHAT, InputLimits(**limits))


def only_error(*lines: dict[str, Any] | bytes, **limits: int) -> BatchError:
    (error,) = validate(*lines, **limits).errors
    return error


def test_a_good_file_has_no_errors_and_its_requests_are_handed_on_with_their_place() -> None:
    taken: list[InputRequest] = []
    file = file_of(request("one"), b"\n", request("two", body={"model": "auto", "stream": False}))
    report = validate_input(file, CHAT, take=taken.append)

    assert report == InputReport(num_requests=2)
    assert [found.line for found in taken] == [BatchLine(1, "one"), BatchLine(3, "two")]
    file.seek(taken[1].offset)
    assert json.loads(file.read(taken[1].num_bytes))["custom_id"] == "two"


def test_windows_line_ends_a_byte_order_mark_and_a_missing_last_line_end_are_no_errors() -> None:
    text = b"\xef\xbb\xbf" + json.dumps(request("one")).encode() + b"\r\n" + json.dumps(request("two")).encode()

    assert validate(text) == InputReport(num_requests=2)


@pytest.mark.parametrize(
    ("line", "code", "param", "message"),
    [
        (b"{oops\n", "invalid_json_line", None, "not valid JSON: Expecting property name enclosed in double quotes at column 2"),
        (b'{"custom_id": "\xff"}\n', "invalid_json_line", None, "not valid UTF-8: byte 0xff at position 15"),
        (b"[1]\n", "invalid_json_line", None, "the line is an array, it must be a JSON object"),
        (b'{"custom_id": NaN}\n', "invalid_json_line", None, "NaN is no JSON value"),
        (b"[" * 100_000 + b"\n", "invalid_json_line", None, "nested too deeply"),
        (b'{"body": ' + b"[" * 128 + b"]" * 128 + b"}\n", "invalid_json_line", None, "at most 128 levels deep"),
        (b'{"custom_id": ' + b"1" * 5000 + b"}\n", "invalid_json_line", None, "not valid JSON"),
        ({"method": "POST"}, "missing_required_parameter", "custom_id", """no 'custom_id'; it looks like "custom_id": "request-1\""""),
        (request(7), "invalid_type", "custom_id", "custom_id must be a string, not a number"),
        (request(""), "invalid_value", "custom_id", "custom_id is empty"),
        (request("x" * 600), "string_above_max_length", "custom_id", "has 600 characters, at most 512"),
        (request("a\0b"), "invalid_value", "custom_id", "NUL"),
        (request("\ud800"), "invalid_value", "custom_id", "half a surrogate pair"),
        (request(method="GET"), "invalid_value", "method", "method is 'GET', it must be 'POST'"),
        (request(url="/v1/embeddings"), "url_mismatch", "url", "url is '/v1/embeddings', but the batch is for '/v1/chat/completions'"),
        (request(url=None), "invalid_type", "url", "url must be a string, not null"),
        (request(body="hello"), "invalid_type", "body", "body must be an object, not a string"),
        (request(body={"seed": 2**70}), "invalid_json_line", None, "'1180591620717411303424' has more than 64 bits: write it as a string"),
        (request(body={"metadata": {"k": [-(2**63) - 1]}}), "invalid_json_line", None, "has more than 64 bits"),
        (request(body={"user": "\ud800"}), "invalid_value", "body", "half a surrogate pair"),
        (request(body={"metadata": {"\udfff": 1}}), "invalid_value", "body", "half a surrogate pair"),
        (request(body={"stream": True}), "invalid_value", "body.stream", "a batch is answered in a file: leave it out"),
    ],
)
def test_what_is_wrong_with_a_line_is_told_with_its_number(line: Any, code: str, param: str | None, message: str) -> None:
    error = only_error(request("before"), line, request("after"))

    assert (error.code, error.line, error.param) == (code, 2, param)
    assert message in error.message


def test_whole_surrogate_pairs_and_numbers_of_64_bits_are_taken() -> None:
    body = {"model": "auto", "user": "\N{GRINNING FACE}", "metadata": {"least": -(2**63), "most": 2**64 - 1}}

    assert validate(request(body=body)) == InputReport(1)


def test_a_repeated_id_names_the_line_that_had_it_first() -> None:
    error = only_error(request("same"), request("other"), request("same"))

    assert (error.code, error.line) == ("duplicate_custom_id", 3)
    assert error.message == "the custom_id 'same' stands in line 1 too: give each request one of its own"


def test_an_empty_file_is_refused() -> None:
    error = only_error(b"\n  \n")

    assert (error.code, error.line) == ("empty_file", None)


def test_a_line_that_is_too_large_is_skipped_without_being_kept() -> None:
    report = validate(request("one"), request("x" * 2000), request("two"), max_line_bytes=1000)

    assert [(error.code, error.line) for error in report.errors] == [("line_too_large", 2)]
    assert report.num_requests == 2


def test_a_line_of_exactly_the_limit_is_taken() -> None:
    line = json.dumps(request("one")).encode()

    assert validate(line + b"\n", line.replace(b"one", b"two"), max_line_bytes=len(line)) == InputReport(2)
    assert only_error(line, max_line_bytes=len(line) - 1).code == "line_too_large"


def test_reading_ends_at_one_line_too_many() -> None:
    report = validate(*[request(str(i)) for i in range(9)], max_lines=3)

    assert [(error.code, error.line) for error in report.errors] == [("too_many_tasks", 4)]
    assert not report.complete


@pytest.mark.parametrize("max_line_bytes", [100, 10_000])
def test_reading_ends_at_one_byte_too_many(max_line_bytes: int) -> None:
    report = validate(request("one"), request("x" * 5000), request("two"), max_bytes=3000, max_line_bytes=max_line_bytes)

    assert [error.code for error in report.errors] == ["file_too_large"]
    assert not report.complete


def test_reading_ends_after_a_bounded_number_of_errors() -> None:
    report = validate(*[b"oops\n"] * 50, max_errors=5)

    assert [error.line for error in report.errors] == [1, 2, 3, 4, 5]
    assert not report.complete


def test_a_body_that_its_endpoint_refuses_is_the_lines_error() -> None:
    def check(body: Any) -> None:
        if "messages" not in body:
            raise InvalidRequest("messages is missing", param="messages")

    report = validate_input(file_of(request("one"), request("two", body={"messages": []})), CHAT, check_body=check)

    assert report.errors == (BatchError(BatchErrorCode.INVALID_REQUEST, "messages is missing", 1, "body.messages"),)
    assert report.num_requests == 1


def test_an_endpoint_that_has_no_batches_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no batches for '/v1/chat/completion'; did you mean '/v1/chat/completions'"):
        validate_input(file_of(request()), "/v1/chat/completion")


@PATIENT
@given(st.lists(st.binary(max_size=60)))
def test_any_bytes_are_read_to_their_end_with_an_error_or_a_request_for_each_line(lines: list[bytes]) -> None:
    raw = b"\n".join(lines)
    report = validate_input(io.BytesIO(raw), CHAT, InputLimits(max_errors=1000))

    assert report.complete
    assert report.num_requests == 0
    assert report.errors
