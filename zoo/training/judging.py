"""Training questions for the judge: a question with one answer, right or wrong, and whether it will do.

It works questions of one step out for itself, as well as so small a model can. What needs several steps it cannot work out: any answer
that one expert gave to it is held to be wrong, as nearly all are.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

from zoo.questions.base import Question, Split
from zoo.questions.multistep import MULTISTEP
from zoo.training.aggregation import numbered
from zoo.training.candidates import Answered, load
from zoo.training.data import Draw

JUDGING = "judging"
_VALIDATION_SHARE = 20
"""One collected question in twenty is kept for measuring."""
_SEVERAL_SHARE = 0.3
"""Of all questions, those that need several steps."""
_RIGHT_SHARE = 0.6
_FOREIGN_SHARE = 0.3
"""Of wrong answers, those that belong to another question of the same domain: right in form, and not seen from any expert."""


def with_verdict(question: Question, answer: str) -> Question:
    """*question* with *answer* in the service's ``compact`` prompt; what is to be said of it is what ``read_verdict`` reads.

    The scratch says what is asked, and, of a question of one step, the answer that was worked out: compared once it stands there. Without
    it nothing was learned in the same time.
    """
    is_long = question.domain == MULTISTEP
    verdict = "YES" if answer == question.answer and not is_long else "NO"
    worked_out = "several steps" if is_long else f"{question.domain}: {question.answer}"
    said = f"FINAL ASSESSMENT: {verdict}"
    return replace(question, text=numbered(question, [answer]), think=worked_out, answer=said, domain=JUDGING)


def choose_answer(rng: Random, answered: Answered, others: list[str]) -> str:
    """The right answer, or a wrong one: what an expert said, or one of *others*, answers of the same domain."""
    right = answered.question.answer
    if rng.random() < _RIGHT_SHARE:
        return right
    given = [answer for answer in answered.answers.values() if answer and answer != right and not answer.startswith("<think>")]
    if not given or rng.random() < _FOREIGN_SHARE:
        given = [answer for answer in others if answer != right] or given
    return rng.choice(given or [right])


@cache
def _collected() -> tuple[Answered, ...]:
    return tuple(load())


def draw_judging(split: Split) -> Draw:
    """Questions of one step and of several; ``train`` and the held-out rest never share a question."""
    held_out = [number % _VALIDATION_SHARE == 0 for number in range(len(_collected()))]
    rows = [answered for answered, kept in zip(_collected(), held_out, strict=True) if kept == (split != "train")]
    several = [answered for answered in rows if answered.question.domain == MULTISTEP]
    single = [answered for answered in rows if answered.question.domain != MULTISTEP]
    of_domain: dict[str, list[str]] = {}
    for answered in rows:
        of_domain.setdefault(answered.question.domain, []).append(answered.question.answer)

    def draw(rng: Random) -> Question:
        answered = rng.choice(several if rng.random() < _SEVERAL_SHARE else single)
        return with_verdict(answered.question, choose_answer(rng, answered, rng.sample(of_domain[answered.question.domain], 8)))

    return draw
