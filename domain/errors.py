"""One error tree.

ConsiliumError
├── RequestError                  the caller must change something
│   ├── InvalidRequest            malformed or contradictory input (names the field)
│   ├── ContextTooLong            the conversation fits no eligible expert
│   ├── Unauthenticated           no key where one is needed
│   ├── Forbidden                 a key that may not do this
│   ├── NotFound                  no such expert, strategy, skill, run or trace (lists the nearest)
│   │   └── ModelNotFound         the name given as ``model``
│   ├── Conflict                  the thing exists already, or is in use
│   ├── PreconditionFailed        If-Match does not name the current version
│   ├── PayloadTooLarge           the body is over the limit
│   └── LimitReached              a key has used up what it may use
│       ├── RateLimited           requests or tokens of a minute, or requests at once (says when to come back)
│       └── QuotaExceeded         its budget of a day or month
├── ServiceError                  the request was fine, the service could not
│   ├── NoEligibleExpert          every expert was filtered out (says why for each)
│   ├── AllExpertsFailed          every chosen expert failed (names each)
│   ├── DeadlineExceeded          time ran out
│   ├── Overloaded                a bounded queue is full (says when to come back)
│   ├── NotReady                  still loading, or a dependency is down
│   └── StorageError              the database cannot be read or written
└── ExpertError                   one expert failed; becomes an ``ExpertFailure``, seldom the request's end
    ├── ExpertUnreachable         refused, reset, unresolvable
    ├── ExpertTimeout             no (further) answer within the limit
    ├── ExpertUnavailable         not called: its circuit is open
    ├── CallRefused               not called: the request's budget has no room for it
    ├── ExpertOverloaded          429 or a full in-flight queue
    ├── ExpertRejected            the expert refused the input (400, bad schema)
    │   └── ExpertContextTooLong  prompt and completion exceed the expert's context
    ├── ExpertAuthFailed          our credentials for the expert are missing or wrong
    └── ExpertProtocolError       garbage, half a stream, 5xx

``api/errors.py`` gives each class an HTTP status; nothing else knows about HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class ConsiliumError(Exception):
    """Base of everything that Consilium raises on purpose. ``str(error)`` is written for the person who reads it."""

    code = "internal_error"
    """Machine-readable code, the ``code`` of OpenAI's error object."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        """The request field at fault, as a dotted path ("consilium.k"), when there is one."""


# --- the caller must change something -------------------------------------------------------------------------------


class RequestError(ConsiliumError):
    code = "invalid_request"


class InvalidRequest(RequestError):
    code = "invalid_request"


class ContextTooLong(RequestError):
    code = "context_length_exceeded"


class Unauthenticated(RequestError):
    code = "invalid_api_key"


class Forbidden(RequestError):
    code = "forbidden"


class NotFound(RequestError):
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class Conflict(RequestError):
    code = "conflict"


class PreconditionFailed(RequestError):
    code = "precondition_failed"


class PayloadTooLarge(RequestError):
    code = "payload_too_large"


class LimitReached(RequestError):
    """The request is not run; ``retry_after_s`` says when it may be, None that it never can be as it is."""

    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimited(LimitReached):
    code = "rate_limit_exceeded"


class QuotaExceeded(LimitReached):
    code = "insufficient_quota"


# --- the service could not ------------------------------------------------------------------------------------------


class ServiceError(ConsiliumError):
    code = "service_error"


class NoEligibleExpert(ServiceError):
    code = "no_eligible_expert"

    def __init__(self, message: str, *, reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reasons = dict(reasons or {})
        """Expert id to the reason why it was filtered out."""


@dataclass(frozen=True, slots=True)
class FailureSummary:
    """Who failed and how, as told to the caller."""

    expert_id: str
    code: str
    message: str


class AllExpertsFailed(ServiceError):
    code = "all_experts_failed"

    def __init__(self, failures: Sequence[FailureSummary]) -> None:
        names = "; ".join(f"{f.expert_id}: {f.message}" for f in failures)
        super().__init__(f"every chosen expert failed ({names})")
        self.failures = tuple(failures)


class DeadlineExceeded(ServiceError):
    code = "deadline_exceeded"


class Overloaded(ServiceError):
    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(ServiceError):
    code = "not_ready"

    def __init__(self, message: str, *, public: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.public = public or message
        """The same for callers: without paths, addresses and names."""
        self.retry_after_s = retry_after_s


class StorageError(ServiceError):
    code = "storage_error"

    def __init__(self, message: str, *, public: str = "the database cannot be used; the log says why") -> None:
        super().__init__(message)
        self.public = public
        """The same for callers: without paths, addresses and names."""


# --- one expert failed ----------------------------------------------------------------------------------------------


class ExpertError(ConsiliumError):
    """One expert's failure. Workers raise only this family; library exceptions stop in the adapter."""

    code = "expert_error"
    retryable = False
    """Whether the same call may be sent again without harm and with hope. One error may know better than its class."""
    expert_at_fault = True
    """Whether it says something about the expert's health (a refused input does not). One error may know better than its
    class: a caller who gives an expert no time learns nothing about it."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        retryable: bool | None = None,
        expert_at_fault: bool | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message, param=param)
        if retryable is not None:
            self.retryable = retryable
        if expert_at_fault is not None:
            self.expert_at_fault = expert_at_fault
        self.status = status
        """The expert's own HTTP status, when it had one."""
        self.retry_after_s = retry_after_s


class ExpertUnreachable(ExpertError):
    code = "expert_unreachable"
    retryable = True


class ExpertTimeout(ExpertError):
    """No answer in time. At fault is an expert that had the time of its card; not one that the request gave less, or whose
    queue took the request's time."""

    code = "expert_timeout"


class ExpertUnavailable(ExpertError):
    code = "expert_unavailable"
    expert_at_fault = False


class CallRefused(ExpertError):
    code = "budget_exceeded"
    expert_at_fault = False


class ExpertOverloaded(ExpertError):
    code = "expert_overloaded"
    retryable = True
    expert_at_fault = False


class ExpertRejected(ExpertError):
    code = "expert_rejected"
    expert_at_fault = False


class ExpertContextTooLong(ExpertRejected):
    code = "context_length_exceeded"


class ExpertAuthFailed(ExpertError):
    code = "expert_auth_failed"


class ExpertProtocolError(ExpertError):
    code = "expert_protocol_error"
    retryable = True
