"""Whether an answer is right: one grader per form of answer, and which one a question gets.

``exact``       equal after ``domain.answers.normalise_answer`` (case, white space, quotes, punctuation, number spelling)
``exact_case``  like ``exact``, but upper and lower case differ: for questions about letter case
``choice``      the letter of an option, in its many spellings (``evaluation.choices``)
``number``      the same number; separators, currency, units and rounding as in ``evaluation.numbers``
``math``        mathematically equal (math-verify), within a time limit
``contains``    the expected words stand in the answer, on word boundaries
``regex``       the expected pattern is found in the answer, within a time limit
``judge``       an expert decides (``evaluation.judge``)
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from domain.answers import final_answer, normalise_answer, tidy, without_reasoning
from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.skills import GRADER_NAMES, LabelledQuestion
from evaluation.bounded import ComparisonTimeout, comparer, turns
from evaluation.choices import chosen_letter, letters_of
from evaluation.judge import AnswerJudge
from evaluation.numbers import same_number, whole_quantity

_LATEX = re.compile(r"\\[a-zA-Z]+|\^|\$[^$\d]*[\\^_=]")

_CODE = re.compile(r"\s*-?0\d")
"""Digits with a leading zero are a code or a time rather than a number."""


def grader_of(question: LabelledQuestion) -> str:
    """The grader that *question* names, else the one that its answer's form asks for.

    ``choice`` for one letter among its options (given, or marked ``(A)`` in its text), also when the answer is the text
    of an option; ``number`` for a number, ``math`` for LaTeX, ``exact`` for everything else.
    """
    if question.grader is not None:
        return question.grader
    if _gold_letter(question) is not None:
        return "choice"
    if whole_quantity(question.answer) is not None and not _CODE.match(question.answer):
        return "number"
    return "math" if _LATEX.search(question.answer) else "exact"


def grade(question: LabelledQuestion, answer: str) -> bool:
    """Whether *answer* is right. Text inside ``<think>`` never counts, and an empty answer is wrong.

    May take seconds for ``math`` and ``regex``; a comparison that runs out of time is wrong. Raises ``InvalidRequest``
    for an unknown grader, and for ``judge``, which needs ``Grader`` with an expert.
    """
    name = grader_of(question)
    compare = _COMPARE.get(name)
    if compare is None:
        raise InvalidRequest(_unusable(name), param="grader")
    answer = without_reasoning(answer)
    return bool(answer) and compare(question, answer)


class Grader:
    """Grades on an event loop: what may take long waits for its turn in a thread, and ``judge`` asks an expert."""

    def __init__(self, judge: AnswerJudge | None = None) -> None:
        self._judge = judge

    def check(self, question: LabelledQuestion) -> None:
        """Raise ``InvalidRequest`` when *question* could not be graded here, before any expert is asked."""
        name = grader_of(question)
        if name not in GRADER_NAMES or (name == "judge" and self._judge is None):
            raise InvalidRequest(f"question {question.id!r}: {_unusable(name)}", param="grader")

    async def grade(self, question: LabelledQuestion, answer: str) -> bool:
        """Whether *answer* is right. Raises as ``grade``, and ``ExpertError`` when the judge fails or says neither yes nor no."""
        name = grader_of(question)
        if name == "judge" and self._judge is not None:
            answer = without_reasoning(answer)
            return bool(answer) and await self._judge.says_right(question, answer)
        if name in ("math", "regex"):
            return await asyncio.get_running_loop().run_in_executor(turns, grade, question, answer)
        return grade(question, answer)


def _exact(question: LabelledQuestion, answer: str) -> bool:
    gold = normalise_answer(question.answer)
    return normalise_answer(answer) == gold if gold else _same_marks(question, answer)


def _exact_case(question: LabelledQuestion, answer: str) -> bool:
    gold = tidy(question.answer)
    return tidy(final_answer(answer)) == gold if gold else _same_marks(question, answer)


def _same_marks(question: LabelledQuestion, answer: str) -> bool:
    """Of an answer that is nothing but punctuation, which is taken off every other: as it stands, or as it is stated."""
    return question.answer.strip() in (answer.strip(), final_answer(answer))


def _choice(question: LabelledQuestion, answer: str) -> bool:
    gold = _gold_letter(question)
    if gold is None:  # named "choice", but its options are nowhere to be seen
        gold = chosen_letter(question.answer, _ALL_LETTERS)
    letters = letters_of(question.question, question.options) or _ALL_LETTERS
    return gold is not None and chosen_letter(answer, letters, question.options) == gold


def _number(question: LabelledQuestion, answer: str) -> bool:
    return _exact(question, answer) or same_number(question.answer, answer)


def _math(question: LabelledQuestion, answer: str) -> bool:
    if _exact(question, answer):
        return True
    try:
        return comparer.math_equal(question.answer, answer)
    except ComparisonTimeout:
        return False


def _contains(question: LabelledQuestion, answer: str) -> bool:
    words = re.escape(normalise_answer(question.answer))
    if not words:
        return bool(marks := question.answer.strip()) and marks in answer
    return re.search(rf"(?<!\w){words}(?!\w)", re.sub(r"\s+", " ", tidy(answer)).casefold()) is not None


def _regex(question: LabelledQuestion, answer: str) -> bool:
    try:
        return comparer.matches(question.answer, answer)
    except ComparisonTimeout:
        return False


_ALL_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_COMPARE: dict[str, Callable[[LabelledQuestion, str], bool]] = {
    "exact": _exact,
    "exact_case": _exact_case,
    "choice": _choice,
    "number": _number,
    "math": _math,
    "contains": _contains,
    "regex": _regex,
}


def _gold_letter(question: LabelledQuestion) -> str | None:
    letters = letters_of(question.question, question.options)
    if not letters:
        return None
    text = tidy(question.answer)
    bare = text.upper() if len(text) == 1 else None
    return bare if bare and bare in letters else chosen_letter(question.answer, letters, question.options) if question.options else None


def _unusable(name: str) -> str:
    if name == "judge":
        return "grader 'judge' needs an expert as judge: name one (--judge EXPERT, or the field judge)"
    return f"unknown grader {name!r}; {did_you_mean(name, GRADER_NAMES)}"
