"""Unit conversion with whole results: length, mass, volume, time, counts."""

from __future__ import annotations

from random import Random

from zoo.questions.arithmetic import column_steps
from zoo.questions.base import Question, Split, draw, dress

# (larger unit, smaller unit, factor, skill)
_CONVERSIONS = (
    ("km", "m", 1000, "length"),
    ("kilometres", "metres", 1000, "length"),
    ("m", "cm", 100, "length"),
    ("metres", "centimetres", 100, "length"),
    ("cm", "mm", 10, "length"),
    ("feet", "inches", 12, "length"),
    ("yards", "feet", 3, "length"),
    ("kg", "g", 1000, "mass"),
    ("kilograms", "grams", 1000, "mass"),
    ("tonnes", "kg", 1000, "mass"),
    ("pounds", "ounces", 16, "mass"),
    ("litres", "ml", 1000, "volume"),
    ("litres", "millilitres", 1000, "volume"),
    ("gallons", "quarts", 4, "volume"),
    ("hours", "minutes", 60, "time units"),
    ("minutes", "seconds", 60, "time units"),
    ("days", "hours", 24, "time units"),
    ("weeks", "days", 7, "time units"),
    ("years", "months", 12, "time units"),
    ("dozen", "pieces", 12, "counts"),
)
_DOWN = (
    "How many {s} are in {n} {l}?", "Convert {n} {l} to {s}.", "{n} {l} in {s}?", "What is {n} {l} in {s}?", "Express {n} {l} in {s}.",
    "How many {s} make {n} {l}?", "Change {n} {l} into {s}.", "{n} {l} equals how many {s}?",
)  # fmt: skip
_UP = (
    "How many {l} are {m} {s}?", "Convert {m} {s} to {l}.", "{m} {s} in {l}?", "What is {m} {s} in {l}?", "Express {m} {s} in {l}.",
    "Change {m} {s} into {l}.", "{m} {s} equals how many {l}?",
)  # fmt: skip
_TRICKY = (
    "On Monday the road to Rome measured {n} {l}. How many {s} is that?", "The letter says {n} {l}. What is that in {s}?",
    "Gold in Peru: {n} {l}. How many {s}?", "In March it was {n} {l}. Convert that to {s}.", "A word for {n} {l} measured in {s}: how many {s}?",
    "True to plan it took {n} {l}. How many {s} is that?",
)  # fmt: skip


def _multiply(n: int, factor: int) -> str:
    """The scratch of ``n * factor``: one column for a digit, two products and their sum for two."""
    if str(factor).strip("0") == "1":
        return f"*{factor}"
    digit, zeros = factor, ""
    while digit % 10 == 0:
        digit, zeros = digit // 10, zeros + "0"
    if digit < 10:
        return f"{column_steps(n, digit, '*')} {zeros}".rstrip()
    tens, unit = divmod(digit, 10)
    whole = n * tens * 10
    return f"{column_steps(n, unit, '*')} {whole} {column_steps(whole, n * unit, '+')}"


def _divide(m: int, factor: int) -> str:
    """The scratch of ``m / factor``: long division, each step with its remainder."""
    if str(factor).strip("0") == "1":
        return f"/{factor}"
    steps, rest = [], 0
    for digit in str(m):
        current = 10 * rest + int(digit)
        rest = current % factor
        steps.append(f"{current}/{factor}={current // factor}r{rest}")
    return " ".join(steps)


def generate(rng: Random, split: Split, *, tricky: bool = False) -> Question:
    tricky = tricky or rng.random() < 0.12
    larger, smaller, factor, skill = rng.choice(_CONVERSIONS)
    # Two-digit factors stay with two-digit operands; wider ranges elsewhere keep the products from being learned by heart.
    top = 99 if factor in (12, 16, 24) else rng.choice((99, 999))

    def make() -> tuple[str, int]:
        count = rng.randint(2, top)
        return f"{larger[0]}{factor}:{count}", count

    n = draw(split, make)
    if tricky or rng.random() < 0.6:
        text = rng.choice(_TRICKY if tricky else _DOWN).format(n=n, l=larger, s=smaller)
        answer, think = str(n * factor), _multiply(n, factor)
    else:
        text = rng.choice(_UP).format(m=n * factor, l=larger, s=smaller)
        answer, think = str(n), _divide(n * factor, factor)
    return Question(dress(rng, text), answer, "units", skill, think, tricky=tricky)
