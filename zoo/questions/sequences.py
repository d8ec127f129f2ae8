"""The next term of a sequence: constant steps up and down, doubling, letters."""

from __future__ import annotations

from random import Random

from zoo.questions.base import Question, Split, draw, dress

_PLAIN = (
    "What comes next: {s}?", "Continue the sequence {s}.", "Next number: {s}, ?", "{s}, ...?", "What is the next term of {s}?",
    "Which term follows {s}?", "Complete the series {s}, ?", "Find the next term: {s}.",
)  # fmt: skip
_TRICKY = (
    "On Monday's tickets: {s}. What comes next?", "The bus to Paris leaves at minutes {s}. What comes next in the sequence?",
    "The pages about gold are {s}. Which page follows?", "True readings were {s}. Which reading follows?",
)  # fmt: skip


def _terms(rng: Random) -> tuple[str, tuple[list[str], str, str]]:
    kind = rng.choice(("up", "up", "down", "double", "letters"))
    if kind == "letters":
        step = rng.randint(1, 4)
        start = rng.randint(0, 25 - 4 * step)
        letters = [chr(ord("A") + start + i * step) for i in range(5)]
        return f"seq:{letters}", (letters[:4], letters[4], f"+{step}")
    if kind == "double":
        start = rng.randint(1, 99)
        values = [start * 2**i for i in range(5)]
        return f"seq:{values}", ([str(v) for v in values[:4]], str(values[4]), f"x2 = {str(values[4])[::-1]}")
    step = rng.randint(1, 15)
    values = [rng.randint(1, 99) + (4 * step if kind == "down" else 0)]
    for _ in range(4):
        values.append(values[-1] + (step if kind == "up" else -step))
    return f"seq:{values}", ([str(v) for v in values[:4]], str(values[4]), f"{'+' if kind == 'up' else '-'}{step} = {str(values[4])[::-1]}")


def generate(rng: Random, split: Split, *, tricky: bool = False) -> Question:
    tricky = tricky or rng.random() < 0.12
    shown, answer, think = draw(split, lambda: _terms(rng))
    text = rng.choice(_TRICKY if tricky else _PLAIN).format(s=", ".join(shown))
    return Question(dress(rng, text), answer, "sequences", "sequences", think, tricky=tricky)
