"""Which text of a conversation is routed."""

from __future__ import annotations

import pytest

from routers.conversation import RoutedText, num_words, routed_text
from tests.fakes.routing import request


def text_of(*turns: str) -> RoutedText:
    return routed_text(request(*turns).messages)


def test_a_single_turn_has_no_context() -> None:
    text = text_of("What is 2 + 3?")

    assert text.texts == ("What is 2 + 3?",)


def test_a_later_turn_is_also_read_after_the_turn_before_it() -> None:
    text = text_of("What is the sum of 2 and 3?", "and doubled?")

    assert text.texts == ("and doubled?", "What is the sum of 2 and 3?\nand doubled?")


def test_a_chain_of_fragments_reaches_back_to_the_turn_that_names_the_topic() -> None:
    text = text_of("Who was the first king of France?", "What is the sum of 2 and 3?", "and doubled?", "plus 7?")

    assert text.with_context == "What is the sum of 2 and 3?\nand doubled?\nplus 7?"


def test_at_most_four_earlier_turns_are_read() -> None:
    text = text_of(*(f"plus {n}?" for n in range(9)))

    assert text.with_context == "plus 4?\nplus 5?\nplus 6?\nplus 7?\nplus 8?"


def test_without_a_user_turn_the_last_text_counts() -> None:
    messages = ({"role": "system", "content": "Add numbers."}, {"role": "user", "content": [{"type": "image_url"}]})

    assert routed_text(messages).texts == ("Add numbers.",)


def test_no_text_at_all_is_an_empty_text() -> None:
    assert routed_text(({"role": "user", "content": None},)).texts == ("",)


@pytest.mark.parametrize(
    ("turn", "similarity", "fragment"),
    [
        ("and doubled?", 0.4, True),
        ("And of Spain?", 0.1, True),
        ("times 3?", 0.35, True),
        ("times 3?", 0.5, False),
        ("Write a poem about autumn.", 0.2, False),
        ("What is the capital of France?", 0.6, False),
        ("And what is the capital of France, the one with the big tower?", 0.5, False),
        ("android phones", 0.1, False),
    ],
)
def test_a_fragment_is_short_begins_like_one_or_resembles_little(turn: str, similarity: float, fragment: bool) -> None:
    assert text_of("Hello there, how are you today?", turn).is_fragment(similarity) is fragment


def test_words_are_counted_where_there_are_no_spaces() -> None:
    assert num_words("法国的首都是哪里") == 1
    assert num_words("法" * 48) == 4
