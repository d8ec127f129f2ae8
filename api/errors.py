"""The error tree as HTTP: one table, OpenAI's shape, and handlers for everything that can be raised."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.dependencies import services_of
from api.headers import known_headers
from api.logs import without_words
from api.schemas.validation import first_problem
from domain import errors
from domain.experts import HealthState
from domain.quoting import shortened

log = logging.getLogger(__name__)

STATUS: Mapping[type[errors.ConsiliumError], int] = {
    errors.ConsiliumError: 500,
    errors.RequestError: 400,
    errors.InvalidRequest: 400,
    errors.ContextTooLong: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.ModelNotFound: 404,
    errors.Conflict: 409,
    errors.PreconditionFailed: 412,
    errors.PayloadTooLarge: 413,
    errors.LimitReached: 429,
    errors.RateLimited: 429,
    errors.QuotaExceeded: 429,
    errors.ServiceError: 500,
    errors.NoEligibleExpert: 503,
    errors.AllExpertsFailed: 502,
    errors.DeadlineExceeded: 504,
    errors.Overloaded: 429,
    errors.NotReady: 503,
    errors.StorageError: 503,
    errors.ExpertError: 502,
    errors.ExpertUnreachable: 502,
    errors.ExpertTimeout: 504,
    errors.ExpertOverloaded: 429,
    errors.ExpertRejected: 400,
    errors.ExpertContextTooLong: 400,
    errors.ExpertAuthFailed: 502,
    errors.ExpertUnavailable: 503,
    errors.CallRefused: 400,
    errors.ExpertProtocolError: 502,
}
"""HTTP status of each class. A class without a row takes its nearest ancestor's; a test asserts that none needs to."""

_TYPES: Mapping[int, str] = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

_KINDS: Mapping[str, str] = {errors.QuotaExceeded.code: "insufficient_quota"}
"""OpenAI's types that follow the code and not the status."""

_HTTP_CODES: Mapping[int, str] = {
    400: "invalid_request",
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
}

MAX_MESSAGE_CHARS = 1000
"""Of a message, or the field that it names: it is for a person, and may be made of what a caller or a server has sent."""

_LASTING = frozenset({errors.ExpertAuthFailed.code, errors.ExpertRejected.code, errors.ExpertContextTooLong.code})
"""Failures of an expert that the same call would meet again."""

_EXPECTED = (errors.NotReady, errors.NoEligibleExpert)
"""5xx of a service that does as it should: no line in the log for each."""


@dataclass(frozen=True, slots=True)
class WireError:
    """An error as it goes to the caller."""

    status: int
    body: Mapping[str, Any]
    retry_after_s: float | None = None
    is_lasting: bool = False
    """The same request would fail again. Clients retry 5xx by themselves; OpenAI's leave it when ``x-should-retry`` says so."""

    def response(self) -> Response:
        headers = {} if self.retry_after_s is None else {"retry-after": str(max(1, math.ceil(self.retry_after_s)))}
        if self.is_lasting:
            headers["x-should-retry"] = "false"
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return Response(orjson.dumps(self.body), status_code=self.status, headers=headers, media_type="application/json")


def status_of(error: errors.ConsiliumError) -> int:
    """The HTTP status of *error*."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


HealthOf = Callable[[str], HealthState]


def is_lasting(error: errors.ConsiliumError, health_of: HealthOf) -> bool:
    """Whether the same request would fail again until somebody changes something: nobody is eligible although everybody is
    healthy, or all that were asked refused for good."""
    match error:
        case errors.NoEligibleExpert():
            return all(health_of(expert_id) is HealthState.CLOSED for expert_id in error.reasons)
        case errors.QuotaExceeded():
            return True
        case errors.RateLimited():
            return error.retry_after_s is None
        case errors.AllExpertsFailed() if error.failures:
            return {failure.code for failure in error.failures} <= _LASTING
        case _:
            return False


def to_wire(error: BaseException, health_of: HealthOf = lambda _: HealthState.CLOSED) -> WireError:
    """*error* in OpenAI's shape. What is not ours is told as an internal error, without its text."""
    match error:
        case errors.ConsiliumError():
            status = status_of(error)
            more: dict[str, Any] = {}
            if isinstance(error, errors.AllExpertsFailed):
                more["experts"] = [{"expert": f.expert_id, "code": f.code, "message": _told(f.message)} for f in error.failures]
            elif isinstance(error, errors.NoEligibleExpert) and error.reasons:
                more["experts"] = [{"expert": expert, "message": _told(reason)} for expert, reason in error.reasons.items()]
            retry_after_s = getattr(error, "retry_after_s", None)
            if retry_after_s is None and status == 429 and not isinstance(error, errors.LimitReached):
                retry_after_s = 1.0
            # Of the storage's own troubles callers hear what to do, the log where: paths and addresses are nobody else's affair.
            message = error.public if isinstance(error, errors.StorageError | errors.NotReady) else error.message
            body = wire_body(status, message, error.code, error.param, **more)
            return WireError(status, body, retry_after_s, is_lasting(error, health_of))
        case RequestValidationError():
            problem = first_problem(error.errors(), error.body)
            return WireError(400, wire_body(400, problem.message, errors.InvalidRequest.code, problem.param))
        case HTTPException():
            code = _HTTP_CODES.get(error.status_code, "http_error")
            return WireError(error.status_code, wire_body(error.status_code, str(error.detail), code))
        case _:
            return WireError(500, wire_body(500, "internal error; the log has the details under this request's id", "internal_error"))


def wire_error_of(error: errors.ConsiliumError) -> tuple[int, Mapping[str, object]]:
    """The status and the error object that a request alone would get, for a line of a batch."""
    wire = to_wire(error)
    told: Mapping[str, object] = wire.body["error"]
    return wire.status, told


def wire_body(status: int, message: str, code: str, param: str | None = None, **more: Any) -> dict[str, Any]:
    """OpenAI's error object; *message* and *param* are cut to what a person reads."""
    kind = _KINDS.get(code) or _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    told = {"message": _told(message), "type": kind, "param": None if param is None else _told(param), "code": code}
    return {"error": {**told, **more}}


def _told(text: str) -> str:
    return shortened(text, MAX_MESSAGE_CHARS)


def answer_to(request: Request, error: Exception) -> Response:
    """What *request* is told of *error*."""
    wire = to_wire(error, services_of(request).directory.health_of)
    if isinstance(error, HTTPException) and error.status_code in (404, 405):
        message = f"{request.method} {request.url.path}: {str(error.detail).lower()}; see /docs for what there is"
        code = _HTTP_CODES[error.status_code]
        response = WireError(error.status_code, wire_body(error.status_code, message, code)).response()
        response.headers.update(error.headers or {})
        return response
    tell_log(request, wire.status, error)
    response = wire.response()
    if wire.status >= 500 or wire.status == 429:
        response.headers.update(known_headers(request))
    return response


def tell_log(request: Request, status: int, error: Exception) -> None:
    """Write down what the caller of *request* was not told, where that is a fault of the service."""
    if status >= 500 and not isinstance(error, _EXPECTED):
        told = without_words(error) if isinstance(error, errors.ConsiliumError) else str(error)
        log.warning("%s %s: %s", request.method, request.url.path, told)
        log.debug("%s %s: %s", request.method, request.url.path, error)


def install(app: FastAPI) -> None:
    """Answer every exception of *app* in OpenAI's shape."""

    async def known(request: Request, error: Exception) -> Response:
        return answer_to(request, error)

    app.add_exception_handler(errors.ConsiliumError, known)
    app.add_exception_handler(RequestValidationError, known)
    app.add_exception_handler(HTTPException, known)
