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
from workers.http_errors import context_overflow, is_context_overflow, retry_after_of

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


def expert_error_of(error: Exception, expert_id: str) -> ExpertError:
    """What *error*, raised by LiteLLM while it called the expert, stands for."""
    # A stream that broke is wrapped, whatever the reason; the reason says more.
    original = getattr(error, "original_exception", None)
    if type(error).__name__ == "MidStreamFallbackError" and isinstance(original, Exception):
        error = original
    kind = next((TRANSLATIONS[base.__name__] for base in type(error).__mro__ if base.__name__ in TRANSLATIONS), ExpertProtocolError)
    said = " ".join(str(error).split())[:500]
    status = getattr(error, "status_code", None)
    if kind is ExpertRejected and (type(error).__name__ == "ContextWindowExceededError" or is_context_overflow(said)):
        return context_overflow(expert_id, said)
    if kind is ExpertUnreachable and isinstance(status, int) and status == 408:
        kind = ExpertTimeout
    return kind(
        f"expert {expert_id!r} failed ({said})",
        status=status if isinstance(status, int) else None,
        retry_after_s=_retry_after(error),
    )


def _retry_after(error: Exception) -> float | None:
    response = getattr(error, "response", None)
    for headers in (getattr(response, "headers", None), getattr(error, "headers", None)):
        if isinstance(headers, Mapping) and (wait := retry_after_of(headers, datetime.now(UTC))) is not None:
            return wait
    return None
