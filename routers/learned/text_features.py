"""What the surface of a text tells about the kind of question it is: lengths, marks, words, how it begins and ends. Pure.

An encoder sees what a text is about; which expert answers it rightly also depends on what it looks like: a formula, code, options
to choose from, a bare phrase, a demand for a format. All numbers are cheap to compute, named (explanations cite them), and grow at
most with the logarithm of the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import log1p

import numpy as np
import numpy.typing as npt

MAX_CHARS = 8_192
"""Of a longer text only this much counts, half from its beginning and half from its end: a decision's time is bounded."""

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_OPTION = re.compile(r"^[ \t]*\(?[A-Ha-h1-9][).:]\s", re.MULTILINE)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_YEAR = re.compile(r"\b1[0-9]{3}\b|\b20[0-9]{2}\b")
_CALL = re.compile(r"\b[A-Za-z_]\w*\(")
_ACRONYM = re.compile(r"\b[A-Z]{2,}\b")
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")

_COUNTED = "$\\(={,_\";-%>[^+*/:'|"
"""Marks whose number is taken (logarithm)."""
_WORDS = (
    "what which who whom whose when where why how many much is are was were do does did can could would should if then write python "
    "function return returns list string array given find compute calculate evaluate simplify solve determine express prove total sum "
    "product value number first last next name each every per year years day days hours minutes dollars cost price percent fraction "
    "probability triangle circle area angle integer integers positive real polynomial equation remainder degrees ways "
    "except best most likely not following true false statement passage according answer the a an of in on at for to with and or from "
    "play plays played sang sings song movie film season episode world war city country team won born died king president "
    "he she his her they it i you your we explain why describe translate summarize"
).split()
_FIRST_WORDS = (
    "what which who whom whose when where why how in on at if is are was do does did can could write find compute let suppose given for "
    "the a an there calculate evaluate simplify solve create implement def q question as it this"
).split()
_LAST_SENTENCE = "what which who how find compute calculate express determine write give evaluate simplify solve if the".split()

_PLACES = {word: place for place, word in enumerate(dict.fromkeys(_WORDS))}
_FIRST_PLACES = {word: place for place, word in enumerate(dict.fromkeys(_FIRST_WORDS))}
_LAST_PLACES = {word: place for place, word in enumerate(dict.fromkeys(_LAST_SENTENCE))}

_ENDS = "? . : newline space letter digit $ ) ] ' \" ,".split()
_FLAGS: dict[str, Callable[[str], bool]] = {
    "starts upper": lambda t: t[:1].isupper(),
    "starts lower": lambda t: t[:1].islower(),
    "starts with space": lambda t: t[:1].isspace(),
    "def": lambda t: "def " in t,
    ">>>": lambda t: ">>>" in t,
    "code fence": lambda t: "```" in t,
    "docstring": lambda t: '"""' in t or "'''" in t,
    "assert": lambda t: "assert" in t,
    "import": lambda t: "import " in t,
    "boxed": lambda t: "boxed" in t,
    "display formula": lambda t: "\\[" in t or "$$" in t,
    "drawing": lambda t: "[asy]" in t,
    "matrix": lambda t: "matrix" in t,
    "fraction": lambda t: "frac" in t,
    "root": lambda t: "sqrt" in t,
    "blank": lambda t: "__" in t or " _ " in t,
    "step by step": lambda t: "step by step" in t.lower(),
    "not ASCII": lambda t: not t.isascii(),
    "double space": lambda t: "  " in t,
    "decimal number": lambda t: re.search(r"\d\.\d", t) is not None,
    "year": lambda t: _YEAR.search(t) is not None,
    "money": lambda t: re.search(r"\$\s?\d", t) is not None,
    "ordinal": lambda t: re.search(r"\d(?:st|nd|rd|th)\b", t) is not None,
    "question mark inside": lambda t: "?" in t.rstrip()[:-1],
}
_NUMBERS = (
    "log chars", "log words", "log sentences", "log lines", "chars per word", "distinct words", "digit share", "upper share", "mark share",
    "line break share", "capitalised share", "commas per word", "log numbers", "log largest number", "log digits of longest number",
    "log commands", "log variables", "log acronyms", "log options", "log calls", "log longest word", "log first line", "log last line",
    "log last sentence", "log indented lines",
)  # fmt: skip

NAMES: tuple[str, ...] = (
    *_NUMBERS,
    *(f"log count {mark}" for mark in _COUNTED),
    *(f"ends with {end}" for end in _ENDS),
    *_FLAGS,
    *(f"word {word}" for word in _PLACES),
    *(f"first word {word}" for word in _FIRST_PLACES),
    *(f"second word {word}" for word in _FIRST_PLACES),
    *(f"last sentence: {word}" for word in _LAST_PLACES),
)


def clipped(text: str) -> str:
    """*text*, or its first and last ``MAX_CHARS / 2`` characters."""
    half = MAX_CHARS // 2
    return text if len(text) <= MAX_CHARS else text[:half] + text[-half:]


def text_features(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """(N, ``len(NAMES)``) float32; the same text gives the same row."""
    rows = np.zeros((len(texts), len(NAMES)), np.float32)
    for row, text in zip(rows, texts, strict=True):
        _fill(row, text)
    return rows


def _fill(row: npt.NDArray[np.float32], whole: str) -> None:
    text = clipped(whole)
    words = _WORD.findall(text)
    lower = [word.lower() for word in words]
    known = set(lower)
    num_words, num_chars = max(len(words), 1), max(len(text), 1)
    numbers = _NUMBER.findall(text)
    lines = text.strip().split("\n")
    stripped = text.rstrip()
    ends = [match.end() for match in _SENTENCE_END.finditer(stripped)]
    before_last = [end for end in ends if end < len(stripped)]
    last_sentence = stripped[before_last[-1] if before_last else 0 :]
    values = [
        log1p(len(whole)), log1p(len(words)), log1p(len(ends)), log1p(len(lines)), sum(map(len, words)) / num_words, len(known) / num_words,
        sum(map(str.isdigit, text)) / num_chars, sum(map(str.isupper, text)) / num_chars,
        sum(not char.isalnum() and not char.isspace() for char in text) / num_chars, text.count("\n") / num_chars,
        sum(word[0].isupper() for word in words[1:]) / num_words, text.count(",") / num_words, log1p(len(numbers)),
        log1p(max(map(_value, numbers), default=0.0)), log1p(max(map(len, numbers), default=0)), log1p(len(_COMMAND.findall(text))),
        log1p(len(_VARIABLE.findall(text))), log1p(len(_ACRONYM.findall(text))), log1p(len(_OPTION.findall(text))),
        log1p(len(_CALL.findall(text))), log1p(max(map(len, words), default=0)), log1p(len(lines[0])), log1p(len(lines[-1])),
        log1p(len(last_sentence)), log1p(sum(line[:1].isspace() for line in lines)),
    ]  # fmt: skip
    values += [log1p(text.count(mark)) for mark in _COUNTED]
    end, final = stripped[-1:], text[-1:]
    values += [end == "?", end == ".", end == ":", final == "\n", final == " ", end.isalpha(), end.isdigit(),
               *(end == mark for mark in "$)]'\","), ]  # fmt: skip
    values += [flag(text) for flag in _FLAGS.values()]
    row[: len(values)] = values
    start = len(values)
    for word in known:
        if (place := _PLACES.get(word)) is not None:
            row[start + place] = 1.0
    start += len(_PLACES)
    for word in lower[:2]:
        if (place := _FIRST_PLACES.get(word)) is not None:
            row[start + place] = 1.0
        start += len(_FIRST_PLACES)
    start = len(NAMES) - len(_LAST_PLACES)
    for word in _WORD.findall(last_sentence.lower()):
        if (place := _LAST_PLACES.get(word)) is not None:
            row[start + place] = 1.0


def _value(number: str) -> float:
    """Of "1,234.5" 1234.5; what only looks like a number counts by its first part. At most 1e12."""
    head, _, tail = number.replace(",", "").partition(".")
    return min(float(f"{head[:13]}.{tail.partition('.')[0][:3] or 0}"), 1e12)
