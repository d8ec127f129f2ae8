"""Questions of several steps: their plans lead to their answers, and no operand of the test set was trained."""

from __future__ import annotations

import json
import re
from random import Random

import pytest

from orchestrator.modes.plans import read_plan
from zoo.build_questions import NUM_MULTISTEP, draw_multistep
from zoo.questions.base import split_of
from zoo.questions.facts import ELEMENTS
from zoo.questions.multistep import KINDS, planned
from zoo.questions.words import number_in_words, roman
from zoo.release import FOLDER

EXPERTS = ("arithmetic", "numerals", "comparison", "facts")
ROMAN = {roman(n): n for n in range(1, 4000)}
ATOMIC = {row[0]: row[2] for row in ELEMENTS}


def answered(question: str) -> str:
    """What the expert of one step has to say."""
    match question.rstrip("?.").split():
        case ["What", "is", a, "+", b]:
            return str(int(a) + int(b))
        case ["What", "is", a, "-", b]:
            return str(int(a) - int(b))
        case ["Write", n, "in", "Roman", "numerals"]:
            return roman(int(n))
        case ["Write", n, "in", "Arabic", "numerals"]:
            return str(ROMAN[n])
        case ["Write", n, "in", "words"]:
            return number_in_words(int(n))
        case ["Which", "is", "larger,", a, "or", b]:
            return str(max(int(a), int(b)))
        case ["Is", n, "even", "or", "odd"]:
            return "odd" if int(n) % 2 else "even"
        case ["What", "is", "the", "atomic", "number", "of", element]:
            return ATOMIC[element]
    raise AssertionError(question)


@pytest.mark.parametrize("seed", range(8))
def test_every_plan_is_one_that_the_service_takes_and_leads_to_the_answer(seed: int) -> None:
    rng = Random(seed)
    for _ in range(100):
        question = planned(rng, "train")
        steps, problems = read_plan(question.plan, EXPERTS, max_steps=6)
        assert not problems
        answers: dict[str, str] = {}
        for step in steps:
            answers[step.id] = answered(step.filled(answers, ""))
        assert answers[steps[-1].id] == question.answer
        assert len(steps) >= 2


def test_the_file_can_be_made_again_and_has_twenty_of_each_kind() -> None:
    rows = [json.loads(line) for line in (FOLDER / "multistep.jsonl").read_text(encoding="utf-8").splitlines()]

    assert rows == draw_multistep(NUM_MULTISTEP, seed=23)
    assert len(rows) == NUM_MULTISTEP * len(KINDS) >= 120


def test_sums_of_the_test_set_are_of_the_test_split() -> None:
    """As the expert for sums was trained: neither order of the operands is trained."""
    rows = [json.loads(line) for line in (FOLDER / "multistep.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if row["skills"] == ["sum in roman"]:
            a, b = sorted(int(n) for n in re.findall(r"\d+", row["question"]))
            assert split_of(f"{a}+{b}", f"{b}+{a}") == "test"
