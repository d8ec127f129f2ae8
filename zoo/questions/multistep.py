"""Questions that need two or three skills, one after the other: what one expert answers is what the next is asked about.

Each has the plan that leads to its answer: steps for the experts of the zoo, in phrasings that they were trained on. ``{1}`` in a step's input
stands for the answer of the first step. No operands of the test set were trained: not by the experts that work on them (sums and differences
are drawn as ``arithmetic`` draws them), and not by the planner (each draw as a whole belongs to one split).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from zoo.questions import GENERATORS
from zoo.questions.arithmetic import _operands
from zoo.questions.base import Question, Split, draw
from zoo.questions.facts import ELEMENTS
from zoo.questions.words import number_in_words, roman

MULTISTEP = "multistep"
PLANNING = "planning"
_ONE_STEP_SHARE = 0.5
_TRICKY_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Step:
    """One question for one expert."""

    expert: str
    input: str

    @property
    def line(self) -> str:
        """As the service's mode ``plan`` reads it."""
        return f"{self.expert}: {self.input}"


@dataclass(frozen=True, slots=True)
class Planned:
    """A question of several steps, and how it is solved."""

    kind: str
    text: str
    answer: str
    steps: tuple[Step, ...]

    @property
    def question(self) -> Question:
        """With its answer; its kind is its skill."""
        return Question(self.text, self.answer, MULTISTEP, self.kind)

    @property
    def plan(self) -> str:
        """A step a line."""
        return "\n".join(step.line for step in self.steps)


Make = Callable[[Random, Split], Planned]


def _add(a: object, b: object) -> Step:
    return Step("arithmetic", f"What is {a} + {b}?")


def _subtract(a: object, b: object) -> Step:
    return Step("arithmetic", f"What is {a} - {b}?")


def _in_roman(n: object) -> Step:
    return Step("numerals", f"Write {n} in Roman numerals.")


def _in_digits(r: object) -> Step:
    return Step("numerals", f"Write {r} in Arabic numerals.")


def _in_words(n: object) -> Step:
    return Step("numerals", f"Write {n} in words.")


def _larger(a: object, b: object) -> Step:
    return Step("comparison", f"Which is larger, {a} or {b}?")


def _parity(n: object) -> Step:
    return Step("comparison", f"Is {n} even or odd?")


def _atomic(element: str) -> Step:
    return Step("facts", f"What is the atomic number of {element}?")


def _sum(rng: Random, split: Split) -> tuple[int, int]:
    return draw(split, lambda: _operands(rng, "+"))


def _difference(rng: Random, split: Split) -> tuple[int, int]:
    a, b = draw(split, lambda: _operands(rng, "-"))
    return (a, b) if a > b else (a + 1, b)


def _sum_in_roman(rng: Random, split: Split) -> Planned:
    a, b = _sum(rng, split)
    text = rng.choice(
        (
            "Add {a} and {b} and write the result in Roman numerals.", "What is {a} plus {b} in Roman numerals?",
            "Write the sum of {a} and {b} in Roman numerals.", "Give {a} + {b} as a Roman numeral.",
        )
    )  # fmt: skip
    return Planned("sum in roman", text.format(a=a, b=b), roman(a + b), (_add(a, b), _in_roman("{1}")))


def _difference_in_words(rng: Random, split: Split) -> Planned:
    a, b = _difference(rng, split)
    text = rng.choice(
        (
            "Subtract {b} from {a} and write the result in words.", "What is {a} minus {b} in words?",
            "Write the difference of {a} and {b} in words.", "Spell out {a} - {b} in words.",
        )
    )  # fmt: skip
    return Planned("difference in words", text.format(a=a, b=b), number_in_words(a - b), (_subtract(a, b), _in_words("{1}")))


def _parity_of_sum(rng: Random, split: Split) -> Planned:
    a, b = _sum(rng, split)
    text = rng.choice(
        ("Is the sum of {a} and {b} even or odd?", "Is {a} + {b} even or odd?", "Add {a} and {b}: is the result even or odd?")
    )
    return Planned("parity of a sum", text.format(a=a, b=b), "odd" if (a + b) % 2 else "even", (_add(a, b), _parity("{1}")))


def _roman_plus(rng: Random, split: Split) -> Planned:
    a, b = _sum(rng, split)
    text = rng.choice(("Add {b} to {r}, in digits.", "What is {r} plus {b} in digits?", "How much is the Roman numeral {r} plus {b}?"))
    return Planned("roman plus", text.format(r=roman(a), b=b), str(a + b), (_in_digits(roman(a)), _add("{1}", b)))


def _roman_sum(rng: Random, split: Split) -> Planned:
    a, b = _sum(rng, split)
    text = rng.choice(
        ("Add {r} and {s}, in Roman numerals.", "What is {r} plus {s} in Roman numerals?", "Write {r} + {s} as a Roman numeral.")
    )
    steps = (_in_digits(roman(a)), _in_digits(roman(b)), _add("{1}", "{2}"), _in_roman("{3}"))
    return Planned("roman sum", text.format(r=roman(a), s=roman(b)), roman(a + b), steps)


def _larger_sum(rng: Random, split: Split) -> Planned:
    (a, b), (c, d) = _sum(rng, split), _sum(rng, split)
    if a + b == c + d:
        return _larger_sum(rng, split)
    text = rng.choice(
        (
            "Which is larger, {a} + {b} or {c} + {d}?",
            "Which sum is bigger: {a} + {b} or {c} + {d}?",
            "The greater of {a} + {b} and {c} + {d}?",
        )
    )
    steps = (_add(a, b), _add(c, d), _larger("{1}", "{2}"))
    return Planned("larger sum", text.format(a=a, b=b, c=c, d=d), str(max(a + b, c + d)), steps)


def _element(rng: Random, split: Split) -> tuple[str, int, int]:
    """An element with its number, and what is added to it."""

    def make() -> tuple[str, tuple[str, int, int]]:
        row, other = rng.choice(ELEMENTS), rng.randint(2, 99)
        return f"atomic:{row[0]}:{other}", (row[0], int(row[2]), other)

    return draw(split, make)


def _atomic_plus(rng: Random, split: Split) -> Planned:
    name, number, other = _element(rng, split)
    text = rng.choice(
        (
            "What is the atomic number of {e} plus {n}?",
            "Add {n} to the atomic number of {e}.",
            "How much is {n} more than the atomic number of {e}?",
        )
    )
    return Planned("atomic plus", text.format(e=name, n=other), str(number + other), (_atomic(name), _add("{1}", other)))


def _larger_atomic(rng: Random, split: Split) -> Planned:
    def make() -> tuple[str, tuple[tuple[str, int], tuple[str, int]]]:
        one, other = rng.sample(ELEMENTS, 2)
        return f"atoms:{one[0]}:{other[0]}", ((one[0], int(one[2])), (other[0], int(other[2])))

    (one, first), (other, second) = draw(split, make)
    text = rng.choice(("Which atomic number is larger, that of {e} or of {f}?", "The larger atomic number of {e} and {f}?"))
    steps = (_atomic(one), _atomic(other), _larger("{1}", "{2}"))
    return Planned("larger atomic number", text.format(e=one, f=other), str(max(first, second)), steps)


KINDS: tuple[Make, ...] = (
    _sum_in_roman,
    _difference_in_words,
    _parity_of_sum,
    _roman_plus,
    _roman_sum,
    _larger_sum,
    _atomic_plus,
    _larger_atomic,
)


def planned(rng: Random, split: Split) -> Planned:
    """A question of any kind."""
    return rng.choice(KINDS)(rng, split)


def generate(rng: Random, split: Split, *, tricky: bool = False) -> Question:  # noqa: ARG001 - a ``Generator``
    """A question of any kind, with its answer."""
    return planned(rng, split).question


def planning(rng: Random, split: Split) -> Question:
    """A question with its plan for an answer, what the planner is trained on: half of them need several steps, half only one.

    A question of one step, which may be the last of a conversation, goes to the expert for its domain as it stands (``{question}``).
    """
    if rng.random() < _ONE_STEP_SHARE:
        domain = rng.choice(tuple(GENERATORS))
        found = GENERATORS[domain](rng, split, tricky=rng.random() < _TRICKY_SHARE)
        return replace(found, answer=Step(domain, "{question}").line, think="", domain=PLANNING)
    several = planned(rng, split)
    return Question(several.text, several.plan, PLANNING, several.kind)
