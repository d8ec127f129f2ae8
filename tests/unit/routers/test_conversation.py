"""Which text of a conversation is routed."""

from __future__ import annotations

import pytest

from routers.conversation import RoutedText, follows, is_fragment, num_words, routed_text
from tests.fakes.routing import request


def text_of(*turns: str) -> RoutedText:
    return routed_text(request(*turns).messages)


def test_a_single_turn_has_no_context() -> None:
    text = text_of("What is 2 + 3?")

    assert text.texts == ("What is 2 + 3?",)


def test_a_later_turn_is_also_read_after_the_turn_before_it() -> None:
    text = text_of("What is the sum of 2 and 3?", "and doubled?")

    assert text.texts == ("and doubled?", "What is the sum of 2 and 3?\nand doubled?", "What is the sum of 2 and 3?")


def test_turns_are_read_in_their_order_however_far_back_the_context_begins() -> None:
    text = text_of("Who was the first king of France?", "What is the sum of 2 and 3?", "and doubled?", "plus 7?")

    assert text.context(2) == "What is the sum of 2 and 3?\nand doubled?"
    assert text.after(2) == "What is the sum of 2 and 3?\nand doubled?\nplus 7?"


def test_at_most_four_earlier_turns_are_read() -> None:
    text = text_of(*(f"plus {n}?" for n in range(9)))

    assert text.earlier == ("plus 7?", "plus 6?", "plus 5?", "plus 4?")


def test_what_system_and_assistant_say_between_the_turns_is_not_read() -> None:
    asked = request("What is 2 + 3?", "and doubled?").messages
    between = ({"role": "system", "content": "Answer in French."}, {"role": "tool", "content": "a capital"}, asked[0])
    text = routed_text((*between, {"role": "developer", "content": "Be brief."}, *asked[1:]))

    assert (text.last, text.earlier) == ("and doubled?", ("What is 2 + 3?",))


def test_an_image_without_a_word_is_left_to_the_turns_before_it() -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
    text = routed_text((*request("What is 2 + 3?", "and doubled?").messages, image))

    assert (text.last, text.earlier) == ("and doubled?", ("What is 2 + 3?",))


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
        ("why?", 0.1, True),
        ("once more please", 0.27, True),
        ("What is 3 plus 4?", 0.4, True),
        ("What is 3 plus 4?", 0.6, False),
        ("Write a poem about autumn.", 0.2, False),
        ("What is the capital of France?", 0.6, False),
        ("And what is the capital of France, the one with the big tower?", 0.5, False),
        ("androids dream of electric sheep", 0.1, False),
        ("德国呢？", 0.1, True),
        ("法国的首都是哪里？", 0.1, False),
        ("เมืองหลวงของฝรั่งเศสคืออะไร", 0.1, False),
    ],
)
def test_a_fragment_is_short_begins_like_one_or_resembles_little(turn: str, similarity: float, fragment: bool) -> None:
    assert is_fragment(turn, similarity) is fragment


@pytest.mark.parametrize(
    ("turn", "context", "together", "continues"),
    [
        ("why?", 0.7, 0.66, True),
        ("Best pasta recipe?", 0.7, 0.45, False),
        ("and of Spain?", 0.7, 0.45, True),
    ],
)
def test_a_turn_that_takes_much_of_what_the_context_resembles_is_a_new_topic(
    turn: str, context: float, together: float, continues: bool
) -> None:
    assert follows(turn, context, together) is continues


def test_an_earlier_turn_in_doubt_ends_the_context() -> None:
    assert follows("Is 7 even?", 0.7, 0.62)
    assert not follows("Is 7 even?", 0.7, 0.62, is_last=False)


def test_words_are_counted_where_there_are_no_spaces() -> None:
    assert num_words("What is 東京?") == 3
    assert num_words("法国的首都是哪里") == 4
    assert num_words("x" * 48) == 4
