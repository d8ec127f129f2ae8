"""Whom to admit, from few examples."""

from __future__ import annotations

import math

import pytest

from domain.errors import InvalidRequest
from domain.skills import LabelledQuestion
from evaluation.admission import UNKNOWN, Credit, chance_of, credit_of, propose
from evaluation.answers.asking import Asked
from evaluation.answers.replies import Reply

QUESTION = LabelledQuestion("q", "What is 6 times 7?", "42")


def row(marks: str) -> list[Credit]:
    """``x`` right, ``?`` right by luck, ``.`` wrong."""
    return [Credit(float(mark == "x"), correct=mark != ".", lucky=mark == "?") for mark in marks]


def test_the_best_comes_first_and_the_different_next() -> None:
    """b is nearly as good as a but knows the same; c knows the rest."""
    found = propose(["a", "b", "c"], [row("xxxxxx.."), row("xxxxx..."), row("......xx")], slots=2, diversity=0.5)

    assert found.proposed == ("a", "c")
    assert (found.coverage_before, found.coverage_after) == (0.0, 1.0)
    left = found.evidence[-1]
    assert (left.expert_id, left.proposed, left.rank, left.most_similar) == ("b", False, None, "a")
    assert left.similarity == pytest.approx(5 / math.sqrt(30))


def test_without_diversity_the_score_decides() -> None:
    found = propose(["a", "b", "c"], [row("xxxxxx.."), row(".xxxxxx."), row("......xx")], slots=2, diversity=0.0)

    assert found.proposed == ("a", "b")


def test_who_adds_nothing_is_left_out_even_when_there_is_room() -> None:
    found = propose(["a", "b"], [row("xxxx.."), row("xxx...")], slots=5, diversity=0.1)

    assert found.proposed == ("a",)
    assert found.evidence[1].why == "answers nothing that the others do not"


def test_experts_that_are_there_count() -> None:
    found = propose(["a", "b"], [row("xxxx.."), row("....x.")], present=[("old", row("xxxx.."))], slots=1, diversity=0.5)

    assert found.proposed == ("b",)
    assert found.coverage_before == pytest.approx(4 / 6)


def test_the_lucky_are_left_out() -> None:
    found = propose(["guesser", "unlucky", "honest"], [row("?????..."), row("........"), row("xxx.....")], slots=3, diversity=0.5)

    assert found.proposed == ("honest",)
    whys = {one.expert_id: one.why for one in found.evidence}
    assert whys["guesser"] == "every right answer was lucky"
    assert whys["unlucky"] == "never right"


def test_what_is_not_known_counts_neither_for_nor_against() -> None:
    """b is right wherever it was measured; a on two of three. As if wrong elsewhere, b would come last."""
    sparse = [Credit(1.0, correct=True)] * 6 + [UNKNOWN] * 6
    found = propose(["a", "b", "c"], [row("xxxx..xxxx.."), sparse, [UNKNOWN] * 12], slots=3, diversity=0.0)
    evidence = {one.expert_id: one for one in found.evidence}

    assert found.proposed[0] == "b"
    assert (evidence["b"].num_examples, evidence["b"].num_correct) == (6, 6)
    assert evidence["c"].why == "not measured on any of the examples"
    assert evidence["c"].num_examples == 0


def test_those_alike_are_found_on_the_examples_that_both_were_measured_on() -> None:
    half = [*row("xx.."), *[UNKNOWN] * 4]
    found = propose(["b"], [half], present=[("a", row("xx..xxxx"))], slots=1, diversity=0.5)

    assert found.evidence[0].similarity == pytest.approx(1.0)


def test_nobody_and_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="nobody to admit"):
        propose([], [], slots=1, diversity=0.5)
    with pytest.raises(InvalidRequest, match="nobody to admit"):
        propose(["a"], [[]], slots=1, diversity=0.5)


def test_an_answer_without_a_verdict_is_not_known() -> None:
    assert credit_of(QUESTION, Asked(Reply("42"), None)) == UNKNOWN


def test_one_right_of_four_options_may_be_guessing() -> None:
    """Three of ten is what chance gives at one in four: the interval reaches below it. Eight of ten is not."""
    found = propose(["maybe", "sure"], [row("xxx......."), row("xxxxxxxx..")], slots=2, diversity=0.0, chance=0.25)

    assert found.proposed == ("sure",)
    assert "may be guessing" in found.evidence[1].why


def test_few_examples_are_shrunk_towards_the_pool() -> None:
    found = propose(["a", "b"], [row("xx"), row("..")], slots=1, diversity=0.0)

    assert found.evidence[0].score == pytest.approx((2 + 2 * 0.5) / 4)


@pytest.mark.parametrize(
    ("reply", "correct", "expected"),
    [
        (Reply("42"), True, Credit(1.0, correct=True)),
        (Reply("41"), False, Credit(0.0, correct=False)),
        (Reply("42", logprob=math.log(0.9)), True, Credit(0.9, correct=True, by="log-probability")),
        (Reply("42", logprob=math.log(0.2)), True, Credit(0.0, correct=True, lucky=True, by="log-probability")),
        (Reply("42", reasoning="Six sevens are forty, no: 42."), True, Credit(1.0, correct=True, by="reasoning")),
        (Reply("42", reasoning="I like 421 best."), True, Credit(0.0, correct=True, lucky=True, by="reasoning")),
    ],
)
def test_an_answer_counts_by_what_carries_it(reply: Reply, correct: bool, expected: Credit) -> None:
    found = credit_of(QUESTION, Asked(reply, correct))

    assert found.value == pytest.approx(expected.value)
    assert (found.correct, found.lucky, found.by) == (expected.correct, expected.lucky, expected.by)


def test_chance_comes_from_the_options() -> None:
    choice = LabelledQuestion("c", "Which?", "B", options=("1", "2", "3", "4"))

    assert chance_of([QUESTION, choice]) == pytest.approx(0.125)
