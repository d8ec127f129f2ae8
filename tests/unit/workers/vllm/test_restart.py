"""When a server that went down is started again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.vllm.restart import FailureRow, RestartPolicy

POLICY = RestartPolicy(initial_s=1.0, max_s=60.0, jitter=0.5, max_failures=4, stable_s=300.0)
ROWS = st.integers(1, 5000).map(FailureRow)
CHANCE = st.floats(0, 1, exclude_max=True)


def test_waits_double_up_to_the_longest() -> None:
    assert [FailureRow(num).wait_s(POLICY, 0.0) for num in (0, 1, 2, 3, 7, 5000)] == [0.0, 1.0, 2.0, 4.0, 60.0, 60.0]


@given(ROWS, CHANCE)
def test_jitter_only_shortens_and_never_by_more_than_its_share(row: FailureRow, chance: float) -> None:
    longest = row.wait_s(POLICY, 0.0)

    assert longest * (1 - POLICY.jitter) <= row.wait_s(POLICY, chance) <= longest <= POLICY.max_s


def test_a_server_that_keeps_crashing_is_given_up_after_the_bounded_number() -> None:
    row, num_starts = FailureRow(), 0
    while not row.is_over(POLICY):
        num_starts += 1
        row = row.after(POLICY.stable_s - 1, POLICY)

    assert num_starts == POLICY.max_failures


@given(ROWS, st.floats(POLICY.stable_s, 1e9))
def test_a_server_that_ran_long_enough_begins_a_new_row(row: FailureRow, up_s: float) -> None:
    assert row.after(up_s, POLICY) == FailureRow(1)
