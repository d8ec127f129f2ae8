"""Training questions for the aggregator: a question with numbered candidate answers, some wrong."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

from zoo.questions.base import Question, Split
from zoo.questions.multistep import MULTISTEP
from zoo.training.candidates import Answered, load
from zoo.training.data import Draw

_VALIDATION_SHARE = 20
"""One collected question in twenty is kept for measuring."""


def numbered(question: Question, answers: list[str]) -> str:
    """What is asked, followed by the numbered *answers*: the service's ``compact`` aggregation prompt."""
    shown = (" ".join(answer.split())[:60] for answer in answers)
    return "\n".join((question.text, *(f"{number}: {answer}" for number, answer in enumerate(shown, 1))))


def with_candidates(question: Question, answers: list[str]) -> Question:
    """*question* followed by its candidates; the scratch is the number of the first right one: decided before it is copied."""
    return replace(question, text=numbered(question, answers), think=str(answers.index(question.answer) + 1))


def choose_candidates(rng: Random, answered: Answered) -> list[str]:
    """Two or three of the collected answers, shuffled: most often one right among wrong ones, never only wrong ones.

    With a sixth of hopeless cases the aggregator learned to mistrust all candidates, and answered by itself.
    """
    right = [a for a in answered.answers.values() if a == answered.question.answer]
    wrong = [a for a in answered.answers.values() if a != answered.question.answer]
    rng.shuffle(right)
    rng.shuffle(wrong)
    num_right = rng.choice((1, 1, 1, 1, 2))
    num_wrong = rng.choice((1, 2, 2, 2))
    chosen = right[:num_right] + wrong[:num_wrong]
    if len(chosen) < 2:
        chosen = [*chosen, *right, *wrong][:2]
    rng.shuffle(chosen)
    return chosen


@cache
def _collected() -> tuple[Answered, ...]:
    """Questions of one step that somebody answered rightly."""
    return tuple(
        answered for answered in load() if answered.question.domain != MULTISTEP and answered.question.answer in answered.answers.values()
    )


def draw_aggregation(split: Split) -> Draw:
    """Questions over the collected answers; ``train`` and the held-out rest never share a question."""
    held_out = [i % _VALIDATION_SHARE == 0 for i in range(len(_collected()))]
    rows = [a for a, kept in zip(_collected(), held_out, strict=True) if kept == (split != "train")]

    def draw(rng: Random) -> Question:
        answered = rng.choice(rows)
        return with_candidates(answered.question, choose_candidates(rng, answered))

    return draw
