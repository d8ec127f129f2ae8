"""The next term of a sequence: constant steps up and down, doubling; letters in training only."""

from __future__ import annotations

from random import Random

from zoo.questions.arithmetic import column_steps
from zoo.questions.base import Question, Split, draw, dress

_PLAIN = (
    "What comes next: {s}?", "Continue the sequence {s}.", "Next number: {s}, ?", "{s}, ...?", "What is the next term of {s}?",
    "Which term follows {s}?", "Complete the series {s}, ?", "Find the next term: {s}.",
)  # fmt: skip
_TRICKY = (
    "On Monday's tickets: {s}. What comes next?", "The bus to Paris leaves at minutes {s}. What comes next in the sequence?",
    "The pages about gold are {s}. Which page follows?", "True readings were {s}. Which reading follows?",
)  # fmt: skip

_ALPHABET_SHARE = 0.1
"""Of the training questions. There are only 128 such sequences of letters, which are learned by heart as the alphabet is: all of
them are trained, and none is ever asked in validation or test: the adapter that ships gets about half of them right."""


def _letters(rng: Random) -> tuple[list[str], str, str]:
    """Letters with a constant step; the scratch counts on from the last one."""
    step = rng.randint(1, 4)
    start = rng.randint(0, 25 - 4 * step)
    case = rng.choice((str.upper, str.lower))
    alphabet = [case(chr(ord("A") + i)) for i in range(26)]
    at = [start + i * step for i in range(5)]
    return [alphabet[i] for i in at[:4]], alphabet[at[4]], f"+{step} {' '.join(alphabet[at[3] : at[4] + 1])}"


def _numbers(rng: Random, kind: str) -> tuple[list[str], str, str]:
    """Numbers; the scratch takes the last gap on paper, names the rule, then does the next sum on paper."""
    if kind == "double":
        start = rng.randint(1, rng.choice((60, 600)))
        values, rule = [start * 2**i for i in range(5)], "x2"
    else:
        step = rng.randint(1, 25) * (1 if kind == "up" else -1)
        start = rng.randint(1, rng.choice((99, 400))) + (4 * -step if kind == "down" else 0)
        values = [start + i * step for i in range(5)]
        gap = column_steps(max(values[2:4]), min(values[2:4]), "-")
        rule = f"{'+' if step > 0 else '-'} {gap} = {abs(step)}"
    last, change = values[3], values[4] - values[3]
    sum_on_paper = column_steps(last, abs(change), "+" if change > 0 else "-")
    return [str(v) for v in values[:4]], str(values[4]), f"{rule}; {sum_on_paper}"


def _terms(rng: Random) -> tuple[str, tuple[list[str], str, str]]:
    terms = _numbers(rng, rng.choice(("up", "up", "down", "double")))
    return f"seq:{terms[0]}", terms


def generate(rng: Random, split: Split, *, tricky: bool = False) -> Question:
    tricky = tricky or rng.random() < 0.12
    by_heart = split == "train" and rng.random() < _ALPHABET_SHARE
    shown, answer, think = _letters(rng) if by_heart else draw(split, lambda: _terms(rng))
    text = rng.choice(_TRICKY if tricky else _PLAIN).format(s=", ".join(shown))
    return Question(dress(rng, text), answer, "sequences", "sequences", think, tricky=tricky)
