"""Roman numerals, number words and digits (1 to 3999), each into each."""

from __future__ import annotations

from random import Random

from zoo.questions.base import Question, Split, draw, dress
from zoo.questions.words import number_in_words, roman

_ROMAN_TO_DIGITS = (
    "Write {r} in Arabic numerals.", "What number is {r}?", "Convert {r} to digits.", "What is the value of {r}?", "{r} in digits?",
    "What is {r} as a number?", "Which number does the Roman numeral {r} stand for?", "Read the Roman numeral {r}.", "Decode {r}.",
    "Turn the Roman numeral {r} into digits.", "How much is {r} in decimal?",
)  # fmt: skip
_DIGITS_TO_ROMAN = (
    "Write {n} in Roman numerals.", "What is {n} in Roman numerals?", "Convert {n} to a Roman numeral.", "{n} in Roman numerals?",
    "Give the Roman numeral for {n}.", "How did the Romans write {n}?", "Express {n} as a Roman numeral.", "Turn {n} into Roman numerals.",
)  # fmt: skip
_WORDS_TO_DIGITS = (
    "Write {w} in digits.", "What is {w} as a number?", "Convert {w} to digits.", "{w} in figures?", "Write the number {w} with digits.",
    "Put {w} into numerals.", "How is {w} written in figures?", "Express {w} in digits.",
)  # fmt: skip
_DIGITS_TO_WORDS = (
    "Write {n} in words.", "How do you say {n} in words?", "Spell out the number {n}.", "Convert {n} to words.", "{n} in English words?",
    "Express {n} in words.", "Write out {n} in words.", "What is {n} in words?",
)  # fmt: skip
_TRICKY = {
    "roman to digits": (
        "The temple in Rome was built in {r}. Which year is that in digits?", "The clock says {r} on a Friday. Which number is it?",
        "Chapter {r} is about oxygen. Which chapter number is it?", "King {r} of France: which number is {r}?",
        "The film ends with the date {r}. What is {r} in digits?", "Element list, page {r}: what page number is it?",
    ),
    "digits to roman": (
        "Carve the year {n} in Roman numerals.", "Page {n} of the calendar in Roman numerals?", "It was built in {n}. Write that year in Roman numerals.",
        "I walked {n} km. Put {n} in Roman numerals.", "A gold medal says {n}. How is {n} written in Roman numerals?",
    ),
    "words to digits": (
        "The letter says {w}. Write that number in digits.", "It weighs {w} grams. Write {w} in digits.",
        "In the year {w} he was born. Write that year in digits.", "The cheque says {w} dollars. Put it in figures.",
    ),
    "digits to words": (
        "The bill is {n} euros. Write {n} in words.", "The year is {n}. Spell out that year as a number in words.",
        "He ran {n} metres. Write {n} in words.", "Rome paid {n} coins. Write {n} in words.",
    ),
}  # fmt: skip
_PLAIN = {
    "roman to digits": _ROMAN_TO_DIGITS,
    "digits to roman": _DIGITS_TO_ROMAN,
    "words to digits": _WORDS_TO_DIGITS,
    "digits to words": _DIGITS_TO_WORDS,
}
_SKILL = {
    "roman to digits": "roman numerals",
    "digits to roman": "roman numerals",
    "words to digits": "number words",
    "digits to words": "number words",
}


def _number(rng: Random, kind: str) -> tuple[str, int]:
    n = rng.randint(1, rng.choice((100, 1000, 3999, 3999)))
    return f"{kind}:{n}", n


def generate(rng: Random, split: Split, *, tricky: bool = False) -> Question:
    kind = rng.choice(tuple(_PLAIN))
    n = draw(split, lambda: _number(rng, kind))
    tricky = tricky or rng.random() < 0.15
    text = rng.choice(_TRICKY[kind] if tricky else _PLAIN[kind]).format(n=n, r=roman(n), w=number_in_words(n))
    answer = {"digits to roman": roman(n), "digits to words": number_in_words(n)}.get(kind, str(n))
    return Question(dress(rng, text), answer, "numerals", _SKILL[kind], tricky=tricky)
