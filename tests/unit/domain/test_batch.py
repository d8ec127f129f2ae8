"""The states of a batch."""

from __future__ import annotations

from typing import get_args

import pytest
from openai.types import Batch

from domain.batch import BATCH_TRANSITIONS, BatchState, RequestCounts
from domain.errors import Conflict


def test_the_states_are_those_of_openais_batch_object() -> None:
    assert {state.value for state in BatchState} == set(get_args(Batch.model_fields["status"].annotation))


def test_every_state_can_be_reached_and_every_batch_can_end() -> None:
    assert set(BATCH_TRANSITIONS) == set(BatchState)
    assert {state for following in BATCH_TRANSITIONS.values() for state in following} == set(BatchState) - {BatchState.VALIDATING}
    assert {state for state in BatchState if state.is_final} == {"completed", "failed", "expired", "cancelled"}


def test_a_batch_goes_the_usual_way() -> None:
    state = BatchState.VALIDATING
    for following in (BatchState.IN_PROGRESS, BatchState.FINALIZING, BatchState.COMPLETED):
        state = state.becomes(following)

    assert state.is_final


def test_a_batch_that_is_over_stays_so() -> None:
    with pytest.raises(Conflict, match="a batch that is cancelled cannot become in_progress: it is over"):
        BatchState.CANCELLED.becomes(BatchState.IN_PROGRESS)


def test_a_wrong_step_names_the_possible_ones() -> None:
    with pytest.raises(Conflict, match="that is finalizing cannot become cancelling: it can become failed, completed, expired"):
        BatchState.FINALIZING.becomes(BatchState.CANCELLING)


def test_what_is_neither_completed_nor_failed_is_pending() -> None:
    assert RequestCounts(10, 6, 1).pending == 3
