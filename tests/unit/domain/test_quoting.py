"""What callers sent, as messages repeat it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from domain.nearest import did_you_mean
from domain.quoting import MAX_QUOTED, quoted, shortened


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("hi", "'hi'"),
        ("it's\n", '"it\'s\\n"'),
        (7, "7"),
        (None, "None"),
        ([1, "a"], "[1, 'a']"),
        ({"a": [True]}, "{'a': [True]}"),
        ("x" * 100, "'" + "x" * 56 + "..."),
    ],
)
def test_short_values_are_whole(value: object, shown: str) -> None:
    assert quoted(value) == shown


@pytest.mark.parametrize(
    "make",
    [
        lambda: "x" * 10**7,
        lambda: ["x" * 10**6] * 100,
        lambda: {str(number): "y" * 1000 for number in range(1000)},
        lambda: 10**4000,
        lambda: [[[[[1]]]]] * 99,
    ],
)
def test_large_values_are_cut(make: Callable[[], object]) -> None:
    assert len(quoted(make())) <= MAX_QUOTED


def test_what_fits_is_not_cut() -> None:
    assert (shortened("abcd", 4), shortened("abcde", 4)) == ("abcd", "a...")


def test_a_huge_name_is_compared_by_its_beginning() -> None:
    """Comparing takes the product of both lengths."""
    assert did_you_mean("x" * 10**7, ["numerals"]) == "known are numerals"
