"""What somebody probably meant."""

from __future__ import annotations

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from domain.nearest import MISSPELT, did_you_mean, nearest

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
    assert nearest(given, KNOWN, similarity=MISSPELT) == near


@pytest.mark.parametrize(("given", "near"), [("lab", "law"), ("organic chemistry", "chemistry"), ("essays", None), ("", None)])
def test_a_suggestion_may_be_further_off(given: str, near: str | None) -> None:
    assert nearest(given, KNOWN) == near


def test_nothing_is_near_when_nothing_is_known() -> None:
    assert nearest("algebra", []) is None


def test_of_spellings_that_are_equally_near_the_first_of_the_alphabet_is_taken() -> None:
    assert nearest("json schema", ["json_schema", "json-schema"]) == nearest("json schema", ["json-schema", "json_schema"]) == "json-schema"


@for_all(st.text(max_size=20), st.lists(st.text(max_size=20)))
def test_only_a_known_name_is_suggested(given: str, known: list[str]) -> None:
    assert nearest(given, known) in {None, *known}


def test_a_hint_is_the_nearest_or_what_there_is() -> None:
    assert did_you_mean("Numeral", ["text", "numerals"]) == "did you mean 'numerals'?"
    assert did_you_mean("zzz", ["text", "numerals"]) == "known are text, numerals"
    assert did_you_mean("zzz", []) == "there are none yet"


def test_the_known_names_follow_a_suggestion_where_they_are_wanted() -> None:
    assert did_you_mean("numeral", ["text", "numerals"], always_list=True) == "did you mean 'numerals'? Known are text, numerals"
    assert did_you_mean("zzz", ["text", "numerals"], always_list=True) == "known are text, numerals"


def test_several_are_suggested_where_they_are_wanted_best_first() -> None:
    assert did_you_mean("math", ["maths-7b", "law", "maths"], max_suggested=2) == "did you mean 'maths' or 'maths-7b'?"


def test_a_long_list_is_cut() -> None:
    known = [f"skill-{number:02}" for number in range(30)]

    assert did_you_mean("zzz", known).endswith(", skill-19 and 10 more")
    assert did_you_mean("zzz", known[:20]).endswith(", skill-19")
