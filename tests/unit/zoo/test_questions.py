"""The question generators: exact answers, disjoint splits, files that can be made again."""

from __future__ import annotations

import datetime as dt
import json
import re
from random import Random
from typing import Any

import pytest

from zoo.build_questions import NUM_TEST, NUM_VALIDATION, draw_split
from zoo.questions import GENERATORS
from zoo.questions.base import CLOSERS, OPENERS, Question, Split, choose_phrasing, split_of
from zoo.questions.calendar import is_leap
from zoo.questions.facts import COUNTRIES, ELEMENTS, NUM_MISLEADING_HELD_OUT, RELATIONS
from zoo.questions.words import LURES, MONTHS, WEEKDAYS, number_in_words, roman
from zoo.release import FOLDER

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def drawn(domain: str, split: Split = "train", count: int = 300, *, tricky: bool = False) -> list[Question]:
    rng = Random(7)
    return [GENERATORS[domain](rng, split, tricky=tricky) for _ in range(count)]


@pytest.mark.parametrize("domain", GENERATORS)
@pytest.mark.parametrize("split", SPLITS)
def test_every_domain_has_questions_for_every_split(domain: str, split: Split) -> None:
    questions = drawn(domain, split, 150) + drawn(domain, split, 50, tricky=True)

    assert all(q.domain == domain and q.text and q.answer and q.skill for q in questions)
    assert all(q.answer == q.answer.strip() for q in questions)
    assert all(q.tricky for q in questions[-50:])


def undressed(question: Question) -> str:
    """What is asked, with what went before, without greeting, courtesy and punctuation."""
    text = question.text
    for opener in OPENERS:
        text = text.removeprefix(opener)
    for closer in CLOSERS:
        text = text.removesuffix(closer)
    return f"{question.history} {text.rstrip('?.')}"


@pytest.mark.parametrize("held_out", ["validation", "test"])
@pytest.mark.parametrize("domain", GENERATORS)
def test_what_is_held_out_never_stands_in_training(domain: str, held_out: Split) -> None:
    trained = {undressed(q) for q in drawn(domain, "train", 4000)}
    asked = {undressed(q) for q in [*drawn(domain, held_out, 300), *drawn(domain, held_out, 100, tricky=True)]}

    assert len(trained & asked) <= 0.02 * len(asked)


@pytest.mark.parametrize(("kind", "op"), [("addition", "+"), ("multiplication", "*")])
def test_a_sum_or_product_the_other_way_round_is_in_the_same_split(kind: str, op: str) -> None:
    def operands(split: Split) -> set[frozenset[int]]:
        questions = [q for q in drawn("arithmetic", split, 4000) if q.skill == kind and not q.history]
        found = (re.search(rf"(\d+) ?{re.escape(op)} ?(\d+)", q.text) for q in questions)
        return {frozenset((int(match[1]), int(match[2]))) for match in found if match}

    assert operands("train")
    assert not operands("train") & operands("test")


def test_both_sums_of_a_follow_up_are_of_its_split() -> None:
    checked = 0
    for question in drawn("arithmetic", "test", 1500):
        if question.history and question.skill == "addition":
            before = int(question.history[0][1])
            other = int(question.answer) - before
            small, large = sorted((before, other))
            assert split_of(f"{small}+{large}", f"{large}+{small}") == "test", question
            checked += 1

    assert checked > 20


def test_operands_of_two_names_are_trained_when_either_is() -> None:
    names = {split: [key for key in (f"key {i}" for i in range(200)) if split_of(key) == split] for split in SPLITS}
    train, test, validation = names["train"][0], names["test"][0], names["validation"][0]

    assert split_of(test, train) == split_of(train, test) == "train"
    assert split_of(test, validation) == "test"
    assert split_of(validation, test) == "validation"


def test_a_split_depends_on_nothing_but_the_operands() -> None:
    assert split_of("12+30") == split_of("12+30")
    shares = [split_of(f"key {i}") for i in range(6000)]

    assert 0.06 < shares.count("test") / 6000 < 0.11
    assert 0.06 < shares.count("validation") / 6000 < 0.11


def test_arithmetic_answers_are_right() -> None:
    checked = 0
    for question in drawn("arithmetic", count=600):
        if match := re.search(r"(\d+) ?([-+*x]) ?(\d+)", question.text):
            a, op, b = int(match[1]), match[2], int(match[3])
            assert question.answer == str({"+": a + b, "-": a - b, "*": a * b, "x": a * b}[op])
            checked += 1

    assert checked > 100


def test_every_step_of_arithmetic_scratch_is_right_and_together_they_are_the_answer() -> None:
    for question in drawn("arithmetic"):
        results = []
        for step in question.think.split():
            left, right = step.split("=")
            assert eval(left) == int(right), question
            results.append(right)
        digits = results[-1] + "".join(result[-1] for result in reversed(results[:-1]))
        assert str(int(digits)) == question.answer, question


@pytest.mark.parametrize(("n", "letters"), [(1994, "MCMXCIV"), (4, "IV"), (3999, "MMMCMXCIX"), (40, "XL"), (900, "CM")])
def test_roman_numerals(n: int, letters: str) -> None:
    assert roman(n) == letters


@pytest.mark.parametrize(("n", "words"), [(0, "zero"), (21, "twenty-one"), (342, "three hundred forty-two"), (3000, "three thousand")])
def test_number_words(n: int, words: str) -> None:
    assert number_in_words(n) == words


def test_leap_years_are_those_of_the_calendar() -> None:
    for year in range(1600, 2400):
        assert is_leap(year) == (dt.date(year, 3, 1) - dt.date(year, 2, 1) == dt.timedelta(29))


def test_weekday_questions_are_right() -> None:
    checked = 0
    for question in drawn("calendar", count=500):
        match = re.search(r"(\d+) days? (after|before) (\w+day)", question.text)
        if match:
            sign = 1 if match[2] == "after" else -1
            assert question.answer == WEEKDAYS[(WEEKDAYS.index(match[3]) + sign * int(match[1])) % 7]
            checked += 1

    assert checked > 30
    assert len(MONTHS) == 12


def test_logic_answers_are_right() -> None:
    checked = 0
    for question in drawn("logic", count=2000):
        match = re.search(r"Evaluate: ([a-z() ]+?)(?: |$)*$", question.text)
        # Python binds != closer than not, so expressions with both cannot be compared this way.
        if match and not ("xor" in match[1] and "not" in match[1]):
            expression = match[1].replace("true", "True").replace("false", "False").replace("xor", "!=")
            assert question.answer == str(eval(expression)).lower(), question
            checked += 1

    assert checked > 20


def test_facts_have_no_doubles() -> None:
    assert len({c for c, _, _ in COUNTRIES}) == len(COUNTRIES) >= 90
    assert len({k for _, k, _ in COUNTRIES}) == len(COUNTRIES)
    assert [symbol for _, symbol, _ in ELEMENTS][:3] == ["H", "He", "Li"]
    assert ("iron", "Fe", "26") in ELEMENTS
    assert ELEMENTS[-1] == ("barium", "Ba", "56")


def test_facts_hold_out_phrasings() -> None:
    def shape(question: Question) -> str:
        text = question.text
        for row in (*COUNTRIES, *ELEMENTS):
            text = re.sub(rf"\b{re.escape(row[0])}\b|\b{re.escape(row[1])}\b", "_", text)
        return re.sub(r"\d+", "_", text)

    train, test = ({shape(q) for q in drawn("facts", s, 800) if ": " not in q.text[:20] and "!" not in q.text} for s in ("train", "test"))

    assert len(test - train) >= 0.8 * len(test)


@pytest.mark.parametrize(("name", "count"), [("test", NUM_TEST), ("validation", NUM_VALIDATION)])
def test_the_question_files_are_what_the_generators_give(name: str, count: int) -> None:
    seen: set[str] = set()
    test = draw_split("test", NUM_TEST, seed=21, seen=seen)
    rows = test if name == "test" else draw_split("validation", NUM_VALIDATION, seed=22, seen=seen)

    written = [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]
    assert written == rows
    assert len(rows) == count * len(GENERATORS)


def test_the_test_set_is_large_tricky_and_apart_from_validation() -> None:
    test, validation = (
        [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()] for name in ("test", "validation")
    )

    assert len(test) >= 600
    assert sum(bool(row.get("tricky")) for row in test) >= 60
    assert not {(str(r.get("history")), r["question"]) for r in test} & {(str(r.get("history")), r["question"]) for r in validation}


def asked(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_there_are_words_to_mislead_with_that_training_never_saw(split: Split) -> None:
    assert len([word for word in LURES if split_of(f"text:{word}") == split]) >= 10


def test_misleading_text_questions_are_about_many_words_numbers_among_them() -> None:
    questions = [row["question"] for row in asked("test") if row.get("tricky") and row["category"] == "text"]
    found = (re.search(r"""['"](\w+)['"]""", question) for question in questions)
    words = {match[1] for match in found if match}

    assert words <= set(LURES)
    assert len(words) >= 8
    assert len(words & {"eleventh", "thirtieth", "twentieth", "fifteenth", "tenfold", "thirteens", "fives"}) >= 1


def test_misleading_capital_questions_mention_dates() -> None:
    date = re.compile(rf"\d ({'|'.join(MONTHS)})")
    rows = [row for row in asked("test") if row.get("tricky") and row["skills"] == ["capitals"]]

    assert len({row["question"] for row in rows if "capital" in row["question"] and date.search(row["question"])}) >= 1


@pytest.mark.parametrize("relation", RELATIONS)
def test_no_relation_misleads_in_one_way_only(relation: str) -> None:
    phrasings = RELATIONS[relation][2]
    chosen = {
        split: {choose_phrasing(Random(seed), split, phrasings, num_held_out=NUM_MISLEADING_HELD_OUT) for seed in range(100)}
        for split in SPLITS
    }

    assert len(chosen["test"]) == len(chosen["validation"]) == 3
    assert not chosen["train"] & (chosen["test"] | chosen["validation"])
