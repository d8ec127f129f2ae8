"""What somebody probably meant."""

from __future__ import annotations

import pytest

from experts_registry.nearest import near_miss

KNOWN = ["algebra", "roman numerals", "capitals", "chemistry", "law"]


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("algbra", "algebra"),
        ("Algebra", "algebra"),
        ("roman-numerals", "roman numerals"),
        ("Roman_Numeral", "roman numerals"),
        ("capital", "capitals"),
        ("laws", "law"),
        ("essays", None),
        ("tax law", None),
        ("organic chemistry", None),
        ("lab", None),
        ("日本史", None),
    ],
)
def test_a_misspelling_is_told_from_another_name(given: str, near: str | None) -> None:
    assert near_miss(given, KNOWN) == near


def test_nothing_is_near_when_nothing_is_known() -> None:
    assert near_miss("algebra", []) is None
