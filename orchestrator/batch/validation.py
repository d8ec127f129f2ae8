"""A batch's input file, line by line, before anything of it is run. Pure but for reading.

A line is what OpenAI's Batch API takes: ``{"custom_id": "…", "method": "POST", "url": "/v1/chat/completions", "body": {…}}``.
The file is read once, one line in memory at a time; what stays are the ``custom_id``s, which must be unique.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from domain.batch import BATCH_ENDPOINTS, BatchError, BatchErrorCode, BatchLine
from domain.errors import InvalidRequest, RequestError
from domain.nearest import did_you_mean
from domain.nesting import MAX_LEVELS, deeper_than

_METHOD = "POST"
_BOM = b"\xef\xbb\xbf"
_TYPES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
_ENDS_READING = frozenset({BatchErrorCode.EMPTY_FILE, BatchErrorCode.FILE_TOO_LARGE, BatchErrorCode.TOO_MANY_LINES})
_MAX_SHOWN = 80
"""Characters of what was given that a message repeats."""
_LEAST, _MOST = -(2**63), 2**64 - 1
"""Whole numbers that can be written down for an expert."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

CheckBody = Callable[[Mapping[str, Any]], None]
"""Raises ``RequestError`` for a body that its endpoint does not take."""


class ByteLines(Protocol):
    """A binary file that is open for reading."""

    def readline(self, limit: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class InputLimits:
    """Every bound of an input file. OpenAI takes 50,000 lines in 200 MB."""

    max_lines: int = 100_000
    """Requests. A plan of that many takes seconds and well under 100 MB."""
    max_bytes: int = 500_000_000
    """Of the file."""
    max_line_bytes: int = 10_000_000
    """Of one line: what one request may have when it comes alone (``CONSILIUM_MAX_BODY_BYTES``)."""
    max_custom_id_chars: int = 512
    """An id is a key, and in memory while the file is read: a batch of the longest ones takes 2 kB a line."""
    max_errors: int = 100
    """Reading ends there: nobody reads more, and the same mistake is mostly in every line."""


@dataclass(frozen=True, slots=True)
class InputRequest:
    """One valid line."""

    line: BatchLine
    body: Mapping[str, Any]
    offset: int
    """Bytes in the file before the line, so that it can be read again alone."""
    num_bytes: int
    """Of the line, its end included."""


@dataclass(frozen=True, slots=True)
class InputReport:
    """What validation found. An input is taken when there are no ``errors``."""

    num_requests: int
    """Valid ones, up to where reading ended."""
    errors: tuple[BatchError, ...] = ()
    """In the order of their lines, at most ``max_errors``."""
    complete: bool = True
    """False when reading ended before the file did."""


def validate_input(
    file: ByteLines,
    endpoint: str,
    limits: InputLimits | None = None,
    *,
    check_body: CheckBody | None = None,
    take: Callable[[InputRequest], None] = lambda _: None,
) -> InputReport:
    """Read *file* from where it stands to its end; each valid line is given to *take* as soon as it is read.

    *check_body* may refuse a body; what it raises becomes the line's error. Raises ``InvalidRequest`` for an *endpoint* that
    no batch can have.
    """
    limits = limits or InputLimits()
    num_requests, errors = 0, list[BatchError]()
    for found in read_input(file, endpoint, limits, check_body=check_body):
        if isinstance(found, InputRequest):
            num_requests += 1
            take(found)
            continue
        errors.append(found)
        if len(errors) >= limits.max_errors or found.code in _ENDS_READING:
            return InputReport(num_requests, tuple(errors), complete=found.code == BatchErrorCode.EMPTY_FILE)
    return InputReport(num_requests, tuple(errors))


def read_input(
    file: ByteLines, endpoint: str, limits: InputLimits, *, check_body: CheckBody | None = None
) -> Iterator[InputRequest | BatchError]:
    """Every line of *file* in order, valid or the first thing that is wrong with it; lines of white space are skipped.

    Ends after an error of the file as a whole: it is empty, too large, or has too many lines.
    """
    if endpoint not in BATCH_ENDPOINTS:
        hint = did_you_mean(endpoint[:_MAX_SHOWN], BATCH_ENDPOINTS, always_list=True)
        raise InvalidRequest(f"there are no batches for {endpoint[:_MAX_SHOWN]!r}; {hint}", param="endpoint")
    reader = _LineReader(endpoint, limits, check_body)
    number = num_requests = offset = 0
    while raw := file.readline(limits.max_line_bytes + 1):
        number, start = number + 1, offset
        offset += len(raw)
        too_long = len(raw) > limits.max_line_bytes and not raw.endswith(b"\n")
        while too_long and not raw.endswith(b"\n") and (raw := file.readline(limits.max_line_bytes)):
            offset += len(raw)
            if offset > limits.max_bytes:
                break
        if offset > limits.max_bytes:
            yield BatchError(
                BatchErrorCode.FILE_TOO_LARGE, f"the file has more than {limits.max_bytes:,} bytes: make several batches of it"
            )
            return
        if too_long:
            yield BatchError(BatchErrorCode.LINE_TOO_LARGE, f"the line has more than {limits.max_line_bytes:,} bytes", number)
            num_requests += 1
            continue
        if number == 1:
            raw = raw.removeprefix(_BOM)
        if not raw.strip():
            continue
        num_requests += 1
        if num_requests > limits.max_lines:
            message = f"the file has more than {limits.max_lines:,} requests: make several batches of it"
            yield BatchError(BatchErrorCode.TOO_MANY_LINES, message, number)
            return
        found = reader.read(raw, number)
        yield (
            found if isinstance(found, BatchError) else InputRequest(BatchLine(number, found.custom_id), found.body, start, offset - start)
        )
    if not num_requests:
        yield BatchError(BatchErrorCode.EMPTY_FILE, "the file has no requests: write one JSON object a line")


@dataclass(frozen=True, slots=True)
class _Request:
    custom_id: str
    body: Mapping[str, Any]


class _Refused(Exception):  # never leaves this module
    def __init__(self, code: BatchErrorCode, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


class _LineReader:
    """Checks one line after the other, and remembers the ids."""

    def __init__(self, endpoint: str, limits: InputLimits, check_body: CheckBody | None) -> None:
        self._endpoint, self._limits, self._check_body = endpoint, limits, check_body
        self._line_of: dict[str, int] = {}

    def read(self, raw: bytes, number: int) -> _Request | BatchError:
        try:
            payload = _json_object(raw)
            custom_id = self._custom_id(payload, number)
            _expect(payload, "method", str, "POST")
            if payload["method"] != _METHOD:
                raise _Refused(BatchErrorCode.INVALID_VALUE, f"method is {_shown(payload['method'])}, it must be {_METHOD!r}", "method")
            _expect(payload, "url", str, self._endpoint)
            if payload["url"] != self._endpoint:
                message = f"url is {_shown(payload['url'])}, but the batch is for {self._endpoint!r}"
                raise _Refused(BatchErrorCode.URL_MISMATCH, message, "url")
            _expect(payload, "body", dict, "{…}")
            body = payload["body"]
            if body.get("stream"):
                message = "body.stream is set, but a batch is answered in a file: leave it out"
                raise _Refused(BatchErrorCode.INVALID_VALUE, message, "body.stream")
            _require_whole_letters(body, raw)
            if self._check_body is not None:
                self._check_body(body)
        except _Refused as refused:
            return BatchError(refused.code, refused.message, number, refused.param)
        except RequestError as error:
            return BatchError(BatchErrorCode.INVALID_REQUEST, error.message, number, f"body.{error.param}" if error.param else "body")
        return _Request(custom_id, body)

    def _custom_id(self, payload: Mapping[str, Any], number: int) -> str:
        _expect(payload, "custom_id", str, "request-1")
        custom_id: str = payload["custom_id"]
        if not custom_id:
            raise _Refused(BatchErrorCode.INVALID_VALUE, "custom_id is empty: give each request a name of its own", "custom_id")
        if len(custom_id) > self._limits.max_custom_id_chars:
            message = f"custom_id has {len(custom_id):,} characters, at most {self._limits.max_custom_id_chars} are kept"
            raise _Refused(BatchErrorCode.ID_TOO_LONG, message, "custom_id")
        if "\0" in custom_id or any("\ud800" <= letter <= "\udfff" for letter in custom_id):
            message = "custom_id must not hold a NUL character or half a surrogate pair"
            raise _Refused(BatchErrorCode.INVALID_VALUE, message, "custom_id")
        first = self._line_of.setdefault(custom_id, number)
        if first != number:
            message = f"the custom_id {_shown(custom_id)} stands in line {first} too: give each request one of its own"
            raise _Refused(BatchErrorCode.DUPLICATE_ID, message, "custom_id")
        return custom_id


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        payload = json.loads(raw.decode(), parse_constant=_no_constant, parse_int=_whole)
    except UnicodeDecodeError as error:
        message = f"the line is not valid UTF-8: byte {raw[error.start]:#04x} at position {error.start}"
        raise _Refused(BatchErrorCode.INVALID_JSON_LINE, message) from None
    except json.JSONDecodeError as error:
        message = f"the line is not valid JSON: {error.msg} at column {error.colno}"
        raise _Refused(BatchErrorCode.INVALID_JSON_LINE, message) from None
    except RecursionError:
        raise _Refused(BatchErrorCode.INVALID_JSON_LINE, "the line is nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits, or no number at all
        raise _Refused(BatchErrorCode.INVALID_JSON_LINE, f"the line is not valid JSON: {error}") from None
    if not isinstance(payload, dict):
        raise _Refused(BatchErrorCode.INVALID_JSON_LINE, f"the line is {_TYPES[type(payload)]}, it must be a JSON object")
    if deeper_than(payload, MAX_LEVELS):
        raise _Refused(BatchErrorCode.INVALID_JSON_LINE, f"the line may be nested at most {MAX_LEVELS} levels deep")
    return payload


def _whole(digits: str) -> int:
    number = int(digits)
    if not _LEAST <= number <= _MOST:
        raise _Refused(BatchErrorCode.INVALID_JSON_LINE, f"the number {_shown(digits)} has more than 64 bits: write it as a string")
    return number


def _require_whole_letters(body: Mapping[str, Any], raw: bytes) -> None:
    """Refuse half a surrogate pair anywhere: it cannot be sent to an expert. Only an escape can make one."""
    if _SURROGATE.search(raw) is None:
        return
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        message = "body must not hold half a surrogate pair"
        raise _Refused(BatchErrorCode.INVALID_VALUE, message, "body") from None


def _no_constant(name: str) -> NoReturn:
    msg = f"{name} is no JSON value"
    raise ValueError(msg)


def _expect(payload: Mapping[str, Any], field: str, kind: type, example: str) -> None:
    if field not in payload:
        message = f'the line has no {field!r}; it looks like "{field}": {example if kind is dict else json.dumps(example)}'
        raise _Refused(BatchErrorCode.MISSING_PARAMETER, message, field)
    if not isinstance(payload[field], kind):
        message = f"{field} must be {_TYPES[kind]}, not {_TYPES[type(payload[field])]}"
        raise _Refused(BatchErrorCode.INVALID_TYPE, message, field)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…")
