"""LiteLLM's exceptions to ``ExpertError``: the one place that knows them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from domain.errors import (
    ExpertAuthFailed,
    ExpertError,
    ExpertOverloaded,
    ExpertProtocolError,
    ExpertRejected,
    ExpertTimeout,
    ExpertUnreachable,
)
from domain.quoting import shortened
from workers.addresses import AddressRefused
from workers.credentials import redacted
from workers.http_errors import LASTING, SHOWN, STATUS_ERRORS, context_overflow, is_context_overflow, retry_after_of

TRANSLATIONS: Mapping[str, type[ExpertError]] = {
    "APIConnectionError": ExpertUnreachable,
    "APIError": ExpertProtocolError,
    "APIResponseValidationError": ExpertProtocolError,
    "AuthenticationError": ExpertAuthFailed,
    "BadGatewayError": ExpertProtocolError,
    "BadRequestError": ExpertRejected,
    "BlockedPiiEntityError": ExpertRejected,
    "BudgetExceededError": ExpertAuthFailed,
    "ContentPolicyViolationError": ExpertRejected,
    "ContextWindowExceededError": ExpertRejected,
    "GuardrailRaisedException": ExpertRejected,
    "ImageFetchError": ExpertRejected,
    "InternalServerError": ExpertProtocolError,
    "InvalidRequestError": ExpertRejected,
    "JSONSchemaValidationError": ExpertProtocolError,
    "LiteLLMUnknownProvider": ExpertUnreachable,
    "MidStreamFallbackError": ExpertProtocolError,
    "MockException": ExpertProtocolError,
    "ModelNotMappedError": ExpertUnreachable,
    "ModifyResponseException": ExpertRejected,
    "NotFoundError": ExpertUnreachable,
    "OpenAIError": ExpertProtocolError,
    "PaymentRequiredError": ExpertAuthFailed,
    "PermissionDeniedError": ExpertAuthFailed,
    "RateLimitError": ExpertOverloaded,
    "RejectedRequestError": ExpertRejected,
    "SensitiveDataRouteException": ExpertRejected,
    "ServiceUnavailableError": ExpertProtocolError,
    "Timeout": ExpertTimeout,
    "UnprocessableEntityError": ExpertRejected,
    "UnsupportedParamsError": ExpertRejected,
    "VectorStoreSearchError": ExpertRejected,
}
"""By class name, so that LiteLLM need not be imported to read it. A test holds it against ``litellm.exceptions``."""


_LASTING = frozenset({"LiteLLMUnknownProvider", "ModelNotMappedError", "NotFoundError"})
"""There is no such model or provider, and will not be at the next attempt."""
_NOT_CONNECTED_IN_TIME = frozenset({"ConnectTimeout", "ConnectionTimeoutError"})
_NOT_CONNECTED = frozenset({"ConnectError", "ConnectTimeout", "ClientConnectorError", "ConnectionRefusedError", "gaierror"})
"""What lies at the bottom when no connection came about (httpx, aiohttp, the socket)."""


def expert_error_of(error: Exception, expert_id: str, secret: str | None = None) -> ExpertError:
    """What *error*, raised by LiteLLM while it called the expert, stands for. *secret*, the key that was sent, is not repeated."""
    # A stream that broke is wrapped, whatever the reason; the reason says more.
    original = getattr(error, "original_exception", None)
    if type(error).__name__ == "MidStreamFallbackError" and isinstance(original, Exception):
        error = original
    said = shortened(redacted(" ".join(str(error).split()), secret), SHOWN)
    if refused := next((cause for cause in _chain(error) if isinstance(cause, AddressRefused)), None):
        return ExpertUnreachable(f"expert {expert_id!r} cannot be reached ({refused.strerror})", retryable=False)
    if _NOT_CONNECTED_IN_TIME & set(_causes(error)):
        return ExpertTimeout(f"expert {expert_id!r} took too long to accept a connection ({said})")
    status = getattr(error, "status_code", None)
    kind = _kind_of(error, status)
    if kind is ExpertRejected and (type(error).__name__ == "ContextWindowExceededError" or is_context_overflow(said, _code_of(error))):
        return context_overflow(f"expert {expert_id!r}", said)
    return kind(
        f"expert {expert_id!r} failed ({said})",
        status=status if isinstance(status, int) else None,
        retry_after_s=_retry_after(error),
        retryable=False if status in LASTING or type(error).__name__ in _LASTING else None,
        param=_param_of(error, secret) if issubclass(kind, ExpertRejected) else None,
    )


def _kind_of(error: Exception, status: object) -> type[ExpertError]:
    """The translation of the most specific class, but for the two that LiteLLM also uses for whatever it does not know."""
    name = next((base.__name__ for base in type(error).__mro__ if base.__name__ in TRANSLATIONS), "OpenAIError")
    if name == "APIError" and isinstance(status, int) and status in STATUS_ERRORS:
        return STATUS_ERRORS[status][0]
    if name in ("APIConnectionError", "InternalServerError"):
        return ExpertUnreachable if _NOT_CONNECTED & set(_causes(error)) else ExpertProtocolError
    return TRANSLATIONS[name]


def _causes(error: BaseException) -> list[str]:
    """Class names of *error* and of what led to it."""
    return [type(cause).__name__ for cause in _chain(error)]


def _chain(error: BaseException) -> list[BaseException]:
    """*error* and what led to it."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and len(chain) < 20:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _code_of(error: Exception) -> str | None:
    body = getattr(error, "body", None)
    code = getattr(error, "code", None) or (body.get("code") if isinstance(body, Mapping) else None)
    return code if isinstance(code, str) else None


def _param_of(error: Exception, secret: str | None) -> str | None:
    body = getattr(error, "body", None)
    param = getattr(error, "param", None) or (body.get("param") if isinstance(body, Mapping) else None)
    return redacted(param, secret) if isinstance(param, str) else None


def _retry_after(error: Exception) -> float | None:
    response = getattr(error, "response", None)
    for headers in (getattr(error, "litellm_response_headers", None), getattr(response, "headers", None), getattr(error, "headers", None)):
        if isinstance(headers, Mapping) and (wait := retry_after_of(headers, datetime.now(UTC))) is not None:
            return wait
    return None
