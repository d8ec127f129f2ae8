"""The lines of a batch's output and error files, in OpenAI's shape. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from api.errors import wire_body
from domain.batch import LineResult

_ID = "batch_req_"


def output_line(custom_id: str, result: LineResult) -> bytes:
    """How one request came out, as one line: an answer, the error that the same request alone would have had (``response`` with its
    status and body), or why it was not run (``response`` null, ``error`` says it)."""
    request_id = result.request_id
    line: dict[str, Any] = {
        "id": request_id if request_id.startswith(_ID) else _ID + request_id,
        "custom_id": custom_id,
        "response": None,
        "error": None,
    }
    if result.status:
        body = result.body if result.error is None else error_body(result.status, result.error)
        line["response"] = {"status_code": result.status, "request_id": request_id, "body": body}
    else:
        error = result.error or {}
        line["error"] = {"code": error.get("code"), "message": error.get("message")}
    return _json(line) + b"\n"


def error_body(status: int, error: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's error object; what *error* leaves out is filled in by *status*."""
    usual: dict[str, Any] = wire_body(status, str(error.get("message", "")), str(error.get("code", "")))["error"]
    return {"error": {**usual, **error}}


def _json(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # half a surrogate pair, a number beyond 64 bits: as escapes and digits they are JSON all the same
        return json.dumps(value, separators=(",", ":")).encode()
