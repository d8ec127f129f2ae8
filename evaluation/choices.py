"""The letter that an answer to a multiple-choice question chooses."""

from __future__ import annotations

import re
from collections.abc import Sequence

from domain.answers import normalise_answer, stated_answer, tidy, without_reasoning

_MARKER = re.compile(r"\(([A-Z])\)|(?:^|\s)([A-Z])[).:]\s")
_ONLY = re.compile(r"(?:option|choice|letter|answer)?\s*\(?([A-Za-z])\)?", re.IGNORECASE)
_LEADING = re.compile(
    r"""
    (?:(?:option|choice|letter)\s+)?
    (?: \(([A-Za-z])\)
      | ([A-Za-z])(?=[).:\]](?:\s|$))
      | (?-i:([A-Z]))(?=\s*[-–—]\s | ,?\s+(?:because|since)\b | \s+is\s+(?:correct|right|the)\b)
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_STATED_ANYWHERE = re.compile(
    r"\b(?:answer|choice|option)\b\W{0,4}(?:\s*(?:is|would\s+be|must\s+be|should\s+be))?\W{0,6}(?:(?:option|choice|letter)\s+)?\(?(?-i:([A-Z]))\b(?!['’])",
    re.IGNORECASE,
)
_ANOTHER = re.compile(r"[)\]*.:]*\s*(?:,|/|&|\bor\b|\band\b)\s*(?:\(?(?-i:[A-Z])\)?(?![\w'’])|\([a-z]\))", re.IGNORECASE)


def letters_of(question: str, options: Sequence[str]) -> str:
    """The letters that may be chosen: one per option, or those that *question* marks as ``(A)`` or ``A)``; "" when none."""
    if options:
        return "".join(chr(65 + index) for index in range(len(options)))
    marked = {match[1] or match[2] for match in _MARKER.finditer(question)}
    letters = ""
    while chr(65 + len(letters)) in marked:
        letters += chr(65 + len(letters))
    return letters if len(letters) >= 2 else ""


def chosen_letter(answer: str, letters: str, options: Sequence[str] = ()) -> str | None:
    """The one letter of *letters* that *answer* chooses, or None when it chooses none, several, or cannot be told.

    Read in this order: a boxed or stated answer ("The answer is B"), a bare letter ("(B)", "**B.**"), a letter in front
    ("B) because …"), the text of exactly one option, and last the only letter that stands in brackets.
    """
    text = without_reasoning(answer)
    stated = stated_answer(text)
    for part in (stated, text) if stated is not None else (text,):
        letter = _bare_or_leading(part, letters) or _option_named(part, options)
        if letter:
            return letter
    anywhere = [match for match in _STATED_ANYWHERE.finditer(text) if match[1] in letters]
    if anywhere and not _is_article(text, anywhere[-1]):
        return None if _ANOTHER.match(text, anywhere[-1].end()) else anywhere[-1][1]
    bracketed = {letter for letter in re.findall(r"\(([A-Z])\)", text) if letter in letters}
    return bracketed.pop() if len(bracketed) == 1 else None


def _bare_or_leading(text: str, letters: str) -> str | None:
    bare = _ONLY.fullmatch(tidy(text))
    if bare:
        return _known(bare[1], letters)
    plain = text.lstrip("*_`\"' ").replace("**", "")
    leading = _LEADING.match(plain)
    if leading is None or _ANOTHER.match(plain, leading.end()):
        return None
    return _known(leading[1] or leading[2] or leading[3], letters)


def _known(letter: str, letters: str) -> str | None:
    return letter.upper() if letter.upper() in letters else None


def _is_article(text: str, match: re.Match[str]) -> bool:
    """Whether the "letter" is the word A or I: another word follows that does not give a reason."""
    following = re.match(r"\s+(\w+)", text[match.end() :])
    return match[1] in "AI" and following is not None and following[1].lower() not in ("because", "since", "as", "and", "or", "is", "was")


def _option_named(text: str, options: Sequence[str]) -> str | None:
    said = normalise_answer(text)
    named = [index for index, option in enumerate(options) if normalise_answer(option) == said]
    return chr(65 + named[0]) if len(named) == 1 else None
