"""Operations on the letters of one word: reverse, case, first and last letters, counts, vowels, repetition."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from zoo.questions.base import Question, Split, draw, dress
from zoo.questions.words import LURES, NOUNS, coined_word


def _numbered(word: str) -> str:
    """Letters with their positions, the scratch of a count: "c1 a2 t3"."""
    return " ".join(f"{letter}{i}" for i, letter in enumerate(word, 1))


def _vowels(word: str) -> str:
    return "".join(letter for letter in word if letter in "aeiou")


_Solver = Callable[[str], tuple[str, str]]

_OPERATIONS: dict[str, tuple[str, _Solver, tuple[str, ...]]] = {
    "reverse": (
        "reversing words",
        lambda w: (" ".join(w), w[::-1]),
        ("Reverse the word '{w}'.", "Spell '{w}' backwards.", "What is '{w}' backwards?", "Write '{w}' in reverse.",
         "Turn '{w}' around letter by letter.", "Reverse '{w}'.", "Write the letters of '{w}' from last to first.", "'{w}' backwards?"),
    ),
    "upper": (
        "letter case",
        lambda w: ("", w.upper()),
        ("Write '{w}' in capital letters.", "Uppercase '{w}'.", "Put '{w}' in upper case.", "Capitalise every letter of '{w}'.",
         "'{w}' in all caps?", "Convert '{w}' to uppercase."),
    ),
    "length": (
        "counting letters",
        lambda w: (_numbered(w), str(len(w))),
        ("How many letters are in '{w}'?", "Count the letters of '{w}'.", "How long is the word '{w}'?", "How many letters does '{w}' have?",
         "What is the length of '{w}'?", "Number of letters in '{w}'?"),
    ),
    "vowels": (
        "counting letters",
        lambda w: (_numbered(_vowels(w)) or "none", str(len(_vowels(w)))),
        ("How many vowels are in '{w}'?", "Count the vowels in '{w}'.", "How many vowels does '{w}' have?", "Number of vowels in '{w}'?"),
    ),
    "first": (
        "picking letters",
        lambda w: ("", w[0]),
        ("What is the first letter of '{w}'?", "Which letter does '{w}' start with?", "First letter of '{w}'?", "Give the initial letter of '{w}'."),
    ),
    "last": (
        "picking letters",
        lambda w: ("", w[-1]),
        ("What is the last letter of '{w}'?", "Which letter does '{w}' end with?", "Last letter of '{w}'?", "Give the final letter of '{w}'."),
    ),
    "drop": (
        "removing letters",
        lambda w: ("", "".join(letter for letter in w if letter not in "aeiou") or w),
        ("Write '{w}' without its vowels.", "Remove the vowels from '{w}'.", "Drop all vowels of '{w}'.", "Strip the vowels from '{w}'."),
    ),
    "double": (
        "repeating words",
        lambda w: ("", f"{w}-{w}"),
        ("Write '{w}' twice with a hyphen.", "Repeat '{w}' twice, joined by a hyphen.", "Say '{w}' two times with a hyphen between."),
    ),
}  # fmt: skip


def _word(rng: Random, tricky: bool) -> tuple[str, str]:
    if tricky:
        return f"text:{(word := rng.choice(LURES))}", word
    word = rng.choice(NOUNS) if rng.random() < 0.35 else coined_word(rng)
    return f"text:{word}", word


def generate(rng: Random, split: Split, *, tricky: bool = False) -> Question:
    tricky = tricky or rng.random() < 0.2
    name = rng.choice(("reverse", "reverse", *_OPERATIONS))
    skill, solve, phrasings = _OPERATIONS[name]
    word = draw(split, lambda: _word(rng, tricky))
    think, answer = solve(word)
    text = rng.choice(phrasings).format(w=word)
    if rng.random() < 0.15:
        text = text.replace("'", '"')
    return Question(dress(rng, text), answer, "text", skill, think, tricky=tricky)
