"""What it means for the request when every expert failed."""

from __future__ import annotations

from collections.abc import Sequence

from domain.deadline import Deadline
from domain.errors import (
    AllExpertsFailed,
    CallRefused,
    ConsiliumError,
    ContextTooLong,
    DeadlineExceeded,
    ExpertContextTooLong,
    ExpertOverloaded,
    ExpertProtocolError,
    ExpertRejected,
    ExpertTimeout,
    ExpertUnavailable,
    ExpertUnreachable,
    FailureSummary,
    InvalidRequest,
    NoEligibleExpert,
    Overloaded,
)
from domain.plan import ExpertFailure

_MAY_COME_BEFORE_IT = frozenset(
    error.code for error in (ExpertTimeout, ExpertUnreachable, ExpertUnavailable, ExpertOverloaded, ExpertProtocolError)
)
"""What may have failed before the last expert was given too little time: with more, it might have answered."""


def error_for(failures: Sequence[ExpertFailure], deadline: Deadline) -> ConsiliumError:
    """The request's error. When all experts failed in one way, it is that way: a refused input stays the caller's to
    mend, a full queue says when to come back, a spent deadline is a deadline. Otherwise everyone is named."""
    codes = {failure.code for failure in failures}
    named = "; ".join(f"{failure.expert_id}: {failure.message}" for failure in failures)
    if codes == {ExpertContextTooLong.code}:
        return ContextTooLong(named, param="messages")
    if codes <= {ExpertRejected.code, ExpertContextTooLong.code}:
        params = {failure.param for failure in failures}
        return InvalidRequest(f"refused by {named}", param=params.pop() if len(params) == 1 else None)
    if codes == {CallRefused.code}:
        return InvalidRequest(f"the budget has no room for an answer ({named})", param="consilium")
    if codes == {ExpertUnavailable.code}:
        return NoEligibleExpert(f"every chosen expert is unhealthy ({named})", reasons={f.expert_id: f.message for f in failures})
    if codes == {ExpertOverloaded.code}:
        return Overloaded(named, retry_after_s=max(failure.retry_after_s or 1.0 for failure in failures))
    if ExpertTimeout.code in codes and deadline.expired and codes <= _MAY_COME_BEFORE_IT:
        return DeadlineExceeded(f"the deadline passed while waiting ({named})")
    return AllExpertsFailed([FailureSummary(f.expert_id, f.code, f.message) for f in failures])
