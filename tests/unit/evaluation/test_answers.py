"""``domain.answers``: equal answers get one spelling, different ones stay apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.answers import final_answer, normalise_answer, stated_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Paris", "paris"),
        ('  **"Paris"**. ', "paris"),
        ("The answer is Paris.", "paris"),
        ("It was long ago. The answer is St. Petersburg. It is large.", "st. petersburg"),
        ("Final answer: **12 km**", "12 km"),
        ("so 3 + 4 = 7\n#### 7", "7"),
        (r"hence $\boxed{\text{(B)}}$ or so", "b"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("<think>The answer is 3</think> 4", "4"),
        ("1,000.0", "1000"),
        ("12 000", "12000"),
        ("+5", "5"),
        ("-0.0", "0"),
        ("−.50", "-0.5"),
        ("007", "007"),
        ("29,68, 84", "29, 68, 84"),
        ("(a) or (b)", "(a) or (b)"),
        ("True!", "true"),
        ("", ""),
    ],
)
def test_one_spelling(text: str, expected: str) -> None:
    assert normalise_answer(text) == expected


@pytest.mark.parametrize(
    ("one", "other"), [("12", "120"), ("1.5", "15"), ("-5", "5"), ("Paris", "Paris, Texas"), ("7", "07"), ("not B", "B")]
)
def test_different_answers_stay_different(one: str, other: str) -> None:
    assert normalise_answer(one) != normalise_answer(other)


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_answer(text)

    assert normalise_answer(once) == once


def test_nothing_is_stated_in_a_bare_answer() -> None:
    assert stated_answer("Paris") is None
    assert final_answer(" Paris ") == "Paris"


def test_the_last_statement_counts() -> None:
    assert final_answer("The answer is 3. No, wait.\nThe answer is 4.") == "4."


def test_a_box_that_is_never_closed_is_no_statement() -> None:
    assert stated_answer(r"\boxed{4") is None
