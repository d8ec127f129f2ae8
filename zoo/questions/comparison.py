"""Comparing numbers: the larger, the smaller, order, even or odd.

The scratch ends in the places of the numbers to write, "a" for the first one of the question: decided before it is copied.
"""

from __future__ import annotations

from random import Random

from zoo.questions.base import Question, Split, draw, dress

_LARGER = (
    "Which is larger, {a} or {b}?",
    "Which number is bigger: {a} or {b}?",
    "What is the maximum of {a} and {b}?",
    "The greater of {a} and {b}?",
)
_SMALLER = (
    "Which is smaller, {a} or {b}?",
    "Which number is less: {a} or {b}?",
    "What is the minimum of {a} and {b}?",
    "The lesser of {a} and {b}?",
)
_PARITY = ("Is {a} even or odd?", "Even or odd: {a}?", "Is the number {a} odd or even?", "Tell whether {a} is even or odd.")
_SORT = (
    "Sort {s} from small to large.",
    "Put {s} in ascending order.",
    "Order {s} from least to greatest.",
    "Arrange {s} from smallest to largest.",
)
_LARGER_TRICKY = (
    "Paris has {a} bakeries, Rome {b}. Which number is larger?", "Monday brought {a} guests, Friday {b}. Which number is bigger?",
    "Iron costs {a}, copper {b}. Which number is larger?",
)  # fmt: skip
_PARITY_TRICKY = (
    "The year was {a}. Is that number even or odd?",
    "A word with {a} letters: is {a} even or odd?",
    "He ran {a} metres. Is {a} even or odd?",
)


def _pair(rng: Random) -> tuple[tuple[str, str], tuple[int, int]]:
    top = rng.choice((99, 999, 9999))
    a, b = rng.sample(range(1, top), 2)
    if rng.random() < 0.4:  # the hard case: same leading digit
        b = a + rng.choice((-9, -1, 1, 10, 9, -10))
        b = b if b > 0 else a + 1
    return (f"pair:{min(a, b)},{max(a, b)}", f"pair:{max(a, b)},{min(a, b)}"), (a, b)


def _compare(a: str, b: str) -> str:
    """The scratch: lengths when they differ ("3>2"), else digits up to the first that do ("4=4 2<3")."""
    if len(a) != len(b):
        return f"{len(a)}{'>' if len(a) > len(b) else '<'}{len(b)}"
    steps = []
    for x, y in zip(a, b, strict=True):
        steps.append(f"{x}{'=' if x == y else '>' if x > y else '<'}{y}")
        if x != y:
            break
    return " ".join(steps)


def _number(rng: Random) -> tuple[str, int]:
    n = rng.randint(1, 9999)
    return f"parity:{n}", n


def _triple(rng: Random) -> tuple[str, list[int]]:
    numbers = rng.sample(range(1, 100), 3)
    return f"sort:{numbers}", numbers


def generate(rng: Random, split: Split, *, tricky: bool = False) -> Question:
    tricky = tricky or rng.random() < 0.12
    kind = rng.choice(("larger", "parity")) if tricky else rng.choice(("larger", "smaller", "parity", "sort"))
    if kind == "parity":
        n = draw(split, lambda: _number(rng))
        text = rng.choice(_PARITY_TRICKY if tricky else _PARITY).format(a=n)
        answer, skill, think = "odd" if n % 2 else "even", "even and odd", str(n % 10)
    elif kind == "sort":
        numbers = draw(split, lambda: _triple(rng))
        text = rng.choice(_SORT).format(s=", ".join(map(str, numbers)))
        order = sorted(range(3), key=numbers.__getitem__)
        answer, skill = ", ".join(str(numbers[i]) for i in order), "ordering numbers"
        think = " ".join("abc"[i] for i in order)
    else:
        a, b = draw(split, lambda: _pair(rng))
        phrasings = _LARGER_TRICKY if tricky else _LARGER if kind == "larger" else _SMALLER
        text = rng.choice(phrasings).format(a=a, b=b)
        first = (a > b) == (kind == "larger")
        answer, skill = str(a if first else b), "comparing numbers"
        think = f"{_compare(str(a), str(b))} {'a' if first else 'b'}"
    return Question(dress(rng, text), answer, "comparison", skill, think, tricky=tricky)
