"""Addition, subtraction and short multiplication, in bare, spoken and story form, with follow-up questions.

The scratch is the sum on paper, column by column: without it next to nothing is learned at this size, and with the digit
pairs alone (no carries) it stays below 80 %.
"""

from __future__ import annotations

from random import Random

from zoo.questions.base import Question, Split, draw, dress
from zoo.questions.words import NAMES, THINGS

_PLUS = (
    "What is {a} + {b}?", "{a} + {b} = ?", "{a}+{b}", "Add {a} and {b}.", "What is {a} plus {b}?", "Compute {a} + {b}.",
    "Calculate the sum of {a} and {b}.", "How much is {a} plus {b}?", "Work out {a} + {b}.", "Sum {a} and {b}.",
    "{x} has {a} {t} and gets {b} more. How many {t} now?", "{x} has {a} {t}, {y} has {b}. How many together?",
    "There are {a} {t} here and {b} there. How many in total?",
)  # fmt: skip
_PLUS_TRICKY = (
    "Paris has {a} museums and Rome {b}. How many in both?", "On Monday {x} ran {a} m, on Friday {b} m. What is the sum?",
    "A word list has {a} words. {b} are added. How many words now?", "A capital fund holds {a} and gains {b}. What is it now?",
    "{x} read {a} letters in May and {b} in June. How many together?", "The mine gave {a} kg of gold, then {b} kg. What is the total?",
)  # fmt: skip
_MINUS = (
    "What is {a} - {b}?", "{a} - {b} = ?", "{a}-{b}", "Subtract {b} from {a}.", "What is {a} minus {b}?", "Compute {a} - {b}.",
    "How much is {a} minus {b}?", "Work out {a} - {b}.", "Take {b} away from {a}.", "What is the difference of {a} and {b}?",
    "{x} has {a} {t} and loses {b}. How many are left?", "{x} had {a} {t} and gave {b} to {y}. How many remain?",
    "Of {a} {t}, {b} are sold. How many are left?",
)  # fmt: skip
_MINUS_TRICKY = (
    "A text has {a} words and {b} are cut. How many words are left?", "Of {a} days, {b} have passed. What is {a} minus {b}?",
    "A flask held {a} g of iron and lost {b} g. How much is left?", "Spain sent {a} ships, {b} came back. How many were lost?",
    "The true count was {a}, {b} were false. How many remain?",
)  # fmt: skip
_TIMES = (
    "What is {a} * {b}?", "{a} * {b} = ?", "{a}*{b}", "{a} x {b}", "Multiply {a} by {b}.", "What is {a} times {b}?", "Compute {a} * {b}.",
    "How much is {a} times {b}?", "Work out {a} x {b}.", "What is the product of {a} and {b}?",
    "{b} boxes hold {a} {t} each. How many {t} in all?", "{x} buys {b} bags of {a} {t}. How many {t} is that?",
)  # fmt: skip
_TIMES_TRICKY = (
    "In {b} towns there are {a} schools each. How many schools?", "{x} learns {a} words a day for {b} days. How many words?",
    "{b} crystals have {a} atoms each. How many atoms?", "A poem has {b} lines of {a} letters. How many letters?",
)  # fmt: skip


def column_steps(a: int, b: int, op: str) -> str:
    """``a op b`` digit by digit from the right, as it is done on paper, every carry and borrow written out.

    58 + 75 is "8+5=13 5+7+1=13", 600 - 301 is "10-1=9 10-0-1=9 6-3-1=2", 64 * 9 is "4*9=36 6*9+3=57".
    """
    if op == "*":
        digits, others = str(a)[::-1], str(b) * len(str(a))
    else:
        width = max(len(str(a)), len(str(b)))
        digits, others = str(a).zfill(width)[::-1], str(b).zfill(width)[::-1]
    steps, carry = [], 0
    for x, y in zip(map(int, digits), map(int, others), strict=True):
        taken = f"{'-' if op == '-' else '+'}{carry}" if carry else ""
        if op == "-":
            lent = 10 if x - y - carry < 0 else 0
            steps.append(f"{x + lent}-{y}{taken}={x + lent - y - carry}")
            carry = lent // 10
        else:
            value = (x * y if op == "*" else x + y) + carry
            steps.append(f"{x}{op}{y}{taken}={value}")
            carry = value // 10
    return " ".join(steps)


def _solve(a: int, b: int, op: str) -> tuple[str, str]:
    """``(scratch, answer)`` of ``a op b``."""
    value = {"+": a + b, "-": a - b, "*": a * b}[op]
    return column_steps(a, b, op), str(value)


def _names(a: int, b: int, op: str) -> tuple[str, ...]:
    """What ``a op b`` is known by: sums and products go by both orders, the smaller number first."""
    x, y = (a, b) if op == "-" else sorted((a, b))
    # A product of two digits times one is never asked the other way round.
    return (f"{a}-{b}",) if op == "-" else (f"{y}*{x}",) if op == "*" and y > 9 else (f"{x}{op}{y}", f"{y}{op}{x}")


def _operands(rng: Random, op: str) -> tuple[tuple[str, ...], tuple[int, int]]:
    if op == "*":
        a, b = rng.randint(2, 99), rng.randint(2, 9)
    else:
        top = rng.choice((20, 99, 99, 500, 999))
        a, b = rng.randint(1, top), rng.randint(1, top)
        if op == "-" and a < b:
            a, b = b, a
    return _names(a, b, op), (a, b)


_KINDS = {
    "+": ("addition", _PLUS, _PLUS_TRICKY),
    "-": ("subtraction", _MINUS, _MINUS_TRICKY),
    "*": ("multiplication", _TIMES, _TIMES_TRICKY),
}


_SECOND = {
    "2": ("And doubled?", "And times two?", "Now double it.", "and twice that?"),
    "+": ("And plus {n}?", "Now add {n}.", "plus {n}?", "And {n} more?"),
    "-": ("And minus {n}?", "Now take away {n}.", "minus {n}?", "And {n} less?"),
}


def _follow_up(rng: Random, split: Split) -> Question:
    """A second turn that only makes sense after the first: "and doubled?", "plus 7?"."""
    first_op = rng.choice("+-")
    choice = rng.choice("+-2")

    def make() -> tuple[tuple[str, ...], tuple[int, int, int]]:
        a, b = draw(split, lambda: _operands(rng, first_op))
        value = int(_solve(a, b, first_op)[1])
        if choice == "-" and value < 10:  # too little to take from
            return make()
        other = value if choice == "2" else rng.randint(1, 99 if choice == "+" else min(value, 99))
        return _names(value, other, "-" if choice == "-" else "+"), (a, b, other)

    # Both the sum before and the one that is asked are of the split.
    a, b, other = draw(split, make)
    _, before = _solve(a, b, first_op)
    value, op = int(before), "-" if choice == "-" else "+"
    text = rng.choice(_SECOND[choice]).format(n=other)
    think, answer = _solve(value, other, op)
    opening = rng.choice((_PLUS if first_op == "+" else _MINUS)[:10]).format(a=a, b=b)
    return Question(text, answer, "arithmetic", _KINDS[op][0], think, history=((opening, before),))


def generate(rng: Random, split: Split, *, tricky: bool = False) -> Question:
    if not tricky and rng.random() < 0.08:
        return _follow_up(rng, split)
    op = rng.choice("++--*")
    skill, plain, misleading = _KINDS[op]
    tricky = tricky or rng.random() < 0.15
    a, b = draw(split, lambda: _operands(rng, op))
    x, y = rng.sample(NAMES, 2)
    text = rng.choice(misleading if tricky else plain).format(a=a, b=b, x=x, y=y, t=rng.choice(THINGS))
    think, answer = _solve(a, b, op)
    return Question(dress(rng, text), answer, "arithmetic", skill, think, tricky=tricky)
