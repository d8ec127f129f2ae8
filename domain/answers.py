"""What an answer says, apart from how it is put: shared by voting and grading, so that both see equal answers as equal."""

from __future__ import annotations

import re
import unicodedata

_STATED = re.compile(
    r"(?:\b(?:final\s+|correct\s+|best\s+)?(?:answer|result)\b(?:\s+(?:choice|option))?\W{0,4}(?:\bis\b|=|:)|####)\s*:?\s*(?P<rest>[^\n]*\S)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<!\b(?:St|Mt|Dr|Mr|Ms|No|vs)\.)(?<!\bMrs\.)(?<=[.!?])\s+(?=[A-Z])")
_LIST_COMMA = re.compile(r"\s*(?:(?<!\d),|,(?!\d{3}(?:\D|$)))\s*")
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_MAX_LAYERS = 8
"""Wrappings that are taken off an answer, as in ``Answer: "The answer is **5**."``; more are left as they are."""
_MARKS = "\"'`*_“”‘’«»„‚"
_BRACKETS = (("$", "$"), ("\\(", "\\)"), ("(", ")"), ("[", "]"))
_TRAILING = ".,;:!?。"
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:[,\s]\d{3})+|\d+)(?:\.\d+)?|[+-]?\.\d+")


def final_answer(text: str) -> str:
    """The part of *text* that states the answer.

    The last of: ``\\boxed{…}``, else what follows ``answer is``, ``answer:`` or ``####`` up to the end of its sentence;
    the whole text, stripped, when nothing is stated. A ``<think>`` block in front never counts.
    """
    return stated_answer(text) or without_reasoning(text)


def stated_answer(text: str) -> str | None:
    """Like ``final_answer``, but None when *text* does not single its answer out."""
    text = without_reasoning(text)
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    stated = [match["rest"] for match in _STATED.finditer(text)]
    return _SENTENCE_END.split(stated[-1])[0].strip() if stated else None


def without_reasoning(text: str) -> str:
    """*text* behind its last ``</think>``, stripped."""
    return text.rpartition("</think>")[2].strip()


def normalise_answer(text: str) -> str:
    """One spelling for answers that say the same.

    Takes the final answer and evens out Unicode forms, case, white space, quotes and emphasis around it, punctuation
    after it, the spacing of lists, and the spelling of numbers (``1,000.0`` becomes ``1000``). "" for an empty answer.
    """
    for _ in range(_MAX_LAYERS):
        answer = _LIST_COMMA.sub(", ", tidy(final_answer(text)).casefold()).strip()
        answer = _plain_number(answer) or answer
        if answer == text:
            break
        text = answer
    return text


def tidy(text: str) -> str:
    """*text* without what only dresses it: Unicode forms, white space, quotes, emphasis, trailing punctuation. Keeps the case."""
    text = unicodedata.normalize("NFKC", text).replace("−", "-")
    text = _LATEX_TEXT.sub(r"\1", text).strip()
    text = re.sub(r"\s+", " ", text)
    bare = None
    while bare != text:
        bare = text
        text = text.strip(_MARKS + " ").rstrip(_TRAILING + " ").strip()
        for opening, closing in _BRACKETS:
            inner = text[len(opening) : -len(closing)]
            # Brackets of one kind that go on inside may not be a pair: "(a) or (b)".
            if text == f"{opening}{inner}{closing}" and opening not in inner:
                text = inner.strip()
    return text


def _last_boxed(text: str) -> str | None:
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    begin = text.index("{", start) + 1
    depth = 1
    for position in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin:position].strip()
    return None


def _plain_number(text: str) -> str | None:
    """The shortest spelling of a number; None for anything else and for digits with leading zeros, which may be a code."""
    if not _NUMBER.fullmatch(text):
        return None
    digits = re.sub(r"[,\s+]", "", text)
    if re.match(r"-?0\d", digits):
        return None
    whole, _, fraction = digits.partition(".")
    fraction = fraction.rstrip("0")
    whole = whole if whole.strip("-") else f"{whole}0"
    short = f"{whole}.{fraction}" if fraction else whole
    return "0" if short == "-0" else short
