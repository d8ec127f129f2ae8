"""What it means for the request when every expert failed."""

from __future__ import annotations

import pytest

from domain.deadline import Deadline
from domain.errors import AllExpertsFailed, ConsiliumError, DeadlineExceeded, Overloaded
from domain.plan import ExpertFailure
from orchestrator.failures import error_for

NOW = 100.0
LEFT, SPENT = Deadline(NOW + 1, lambda: NOW), Deadline(NOW, lambda: NOW)


@pytest.mark.parametrize(
    ("codes", "deadline", "error"),
    [
        (["expert_timeout"], SPENT, DeadlineExceeded),
        (["expert_timeout"], LEFT, AllExpertsFailed),
        (["expert_unreachable", "expert_timeout"], SPENT, DeadlineExceeded),
        (["expert_protocol_error", "expert_unavailable", "expert_timeout"], SPENT, DeadlineExceeded),
        (["expert_unreachable", "expert_timeout"], LEFT, AllExpertsFailed),
        (["expert_unreachable"], SPENT, AllExpertsFailed),
        (["expert_auth_failed", "expert_timeout"], SPENT, AllExpertsFailed),
        (["expert_overloaded", "expert_overloaded"], LEFT, Overloaded),
    ],
)
def test_a_request_whose_time_ran_out_says_so(codes: list[str], deadline: Deadline, error: type[ConsiliumError]) -> None:
    """Also where others had failed before the one that was given too little time: with more, it might have answered."""
    raised = error_for([ExpertFailure(f"e{number}", code, "why") for number, code in enumerate(codes)], deadline)

    assert type(raised) is error
    assert all(f"e{number}" in raised.message for number in range(len(codes)))
