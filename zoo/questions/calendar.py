"""Weekdays, months and leap years."""

from __future__ import annotations

from random import Random

from zoo.questions.base import Question, Split, choose_phrasing, draw, dress
from zoo.questions.words import MONTHS, WEEKDAYS

_DAYS_IN_MONTH = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_AFTER = (
    "What day is {n} days after {d}?", "Today is {d}. What day is it in {n} days?", "It is {d}. Which weekday comes {n} days later?",
    "{n} days after {d} is which day?", "If today is {d}, what day will it be in {n} days?", "Which weekday is {n} days from {d}?",
)  # fmt: skip
_AFTER_TRICKY = (
    "I fly to Paris on {d} and return {n} days later. On which weekday?", "The iron rusts {n} days after {d}. Which weekday is that?",
    "{d} plus {n} days?", "The {n} metre race is {n} days after {d}. On which weekday?", "A word puzzle due {n} days after {d} is due on which weekday?",
)  # fmt: skip
_BEFORE = (
    "What day was {n} days before {d}?", "Today is {d}. What day was it {n} days ago?", "{n} days before {d} was which day?",
    "Which weekday comes {n} days before {d}?",
)  # fmt: skip
_MONTH_AFTER = (
    "Which month comes {n} months after {m}?", "What month is {n} months after {m}?", "It is {m}. Which month is it in {n} months?",
    "{n} months after {m} is which month?",
)  # fmt: skip
_MONTH_AFTER_TRICKY = (
    "I moved to Rome in {m} and left {n} months later. In which month?", "{m} plus {n} months?", "The capital was paid back {n} months after {m}. In which month?",
)  # fmt: skip
_LEAP = (
    "Is {y} a leap year?", "Was the year {y} a leap year?", "Does {y} have 366 days?", "Is the year {y} a leap year, yes or no?",
    "Does February {y} have 29 days?",
)  # fmt: skip
# The year decides nothing here, except in February, and all twelve months are trained: the last two phrasings are held out.
_MONTH_LENGTH = (
    "How many days are in {m} {y}?", "How many days does {m} {y} have?", "How long was {m} {y} in days?", "Number of days in {m} {y}?",
    "How many days were in {m} {y}?", "How many days did {m} {y} have?",
)  # fmt: skip
_MONTH_NUMBER = (
    "Which month has the number {n} in a date like {y}-{n}?",
    "Which month has the number {n} in a date such as {y}-{n}?", "Which month is number {n} in a date like {y}-{n}?",
)  # fmt: skip


def is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _leap_scratch(year: int) -> str:
    tail = year % 100
    if tail == 0:
        return f"{year // 100} {'/4' if year % 400 == 0 else 'no'}"
    return f"{tail} {'/4' if tail % 4 == 0 else 'no'}"


def _weekday(rng: Random, split: Split, tricky: bool) -> Question:
    back = not tricky and rng.random() < 0.3
    sign = -1 if back else 1

    def make() -> tuple[str, tuple[int, int]]:
        day, count = rng.randrange(7), rng.randint(2, 60)
        return f"day:{day}{sign * count}", (day, count)

    d, n = draw(split, make)
    text = rng.choice(_BEFORE if back else _AFTER_TRICKY if tricky else _AFTER).format(n=n, d=WEEKDAYS[d])
    rest = n % 7
    path = " ".join(WEEKDAYS[(d + sign * i) % 7][:3] for i in range(rest + 1))
    return Question(text, WEEKDAYS[(d + sign * n) % 7], "calendar", "weekdays", f"{n}-{n - rest}={rest} {path}", tricky=tricky)


def _month(rng: Random, split: Split, tricky: bool) -> Question:
    def make() -> tuple[str, tuple[int, int]]:
        month, count = rng.randrange(12), rng.randint(1, 30)
        return f"month:{month}+{count}", (month, count)

    m, n = draw(split, make)
    text = rng.choice(_MONTH_AFTER_TRICKY if tricky else _MONTH_AFTER).format(n=n, m=MONTHS[m])
    rest = n % 12
    path = " ".join(MONTHS[(m + i) % 12][:3] for i in range(rest + 1))
    return Question(text, MONTHS[(m + n) % 12], "calendar", "months", f"{n}-{n - rest}={rest} {path}", tricky=tricky)


def _year(rng: Random, split: Split) -> int:
    def make() -> tuple[str, int]:
        year = rng.randint(10, 29) * 100 if rng.random() < 0.2 else rng.randint(1600, 2399)
        return f"year:{year}", year

    return draw(split, make)


def _leap(rng: Random, split: Split) -> Question:
    y = _year(rng, split)
    return Question(rng.choice(_LEAP).format(y=y), "yes" if is_leap(y) else "no", "calendar", "leap years", _leap_scratch(y))


def _month_length(rng: Random, split: Split) -> Question:
    y, m = _year(rng, split), rng.randrange(12)
    if rng.random() < 0.4:
        m = 1
    days = _DAYS_IN_MONTH[m] + (1 if m == 1 and is_leap(y) else 0)
    think = _leap_scratch(y) if m == 1 else ""
    return Question(
        choose_phrasing(rng, split, _MONTH_LENGTH, num_held_out=1).format(m=MONTHS[m], y=y), str(days), "calendar", "months", think
    )


def _month_number(rng: Random, split: Split) -> Question:
    y, n = _year(rng, split), rng.randint(1, 12)
    return Question(choose_phrasing(rng, split, _MONTH_NUMBER, num_held_out=1).format(n=n, y=y), MONTHS[n - 1], "calendar", "months")


def generate(rng: Random, split: Split, *, tricky: bool = False) -> Question:
    tricky = tricky or rng.random() < 0.12
    roll = rng.random()
    if tricky:
        question = _weekday(rng, split, True) if roll < 0.6 else _month(rng, split, True)
    elif roll < 0.4:
        question = _weekday(rng, split, False)
    elif roll < 0.6:
        question = _month(rng, split, False)
    elif roll < 0.78:
        question = _leap(rng, split)
    elif roll < 0.92:
        question = _month_length(rng, split)
    else:
        question = _month_number(rng, split)
    return _dressed(rng, question)


def _dressed(rng: Random, q: Question) -> Question:
    return Question(dress(rng, q.text), q.answer, q.domain, q.skill, q.think, tricky=q.tricky)
