"""Numbers in answers: with thousands separators, signs, currencies, percent, units and magnitude words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from domain.answers import stated_answer, without_reasoning

_SPACES = "\u00a0\u2009\u202f"
_NUMBER = re.compile(
    rf"""
    (?<![\w.])(?<!\d,)                           # not inside a word or another number
    (?P<sign>(?<![\w)\]])[-+−])?\s?[$€£¥]?\s?(?P<late>[-−])?
    (?P<whole>\d{{1,3}}(?:[,{_SPACES}']\d{{3}})+(?!\d)|\d+(?!,?\d))?
    (?P<part>(?(whole)(?:\.\d+)?|\.\d+))
    (?:[eE](?P<power>[-+]?\d{{1,2}})(?!\w))?
    (?:\s?/\s?(?P<below>[1-9]\d*)(?![\d.]))?
    (?P<percent>\s?%)?
    (?:\s?(?P<times>thousand|million|billion)\b)?
    (?:\s?(?P<unit>°?[A-Za-zµ]+(?:²|³|\^[23])?))?
    """,
    re.VERBOSE,
)
MAX_DIGITS = 200
_SEPARATOR = re.compile(r"(?:[\s,;.]|and|or)*")
_TIMES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_UNITS = {
    alias: names[0]
    for names in (
        ("mm", "millimetre", "millimeter"),
        ("cm", "centimetre", "centimeter"),
        ("m", "metre", "meter"),
        ("km", "kilometre", "kilometer"),
        ("inch", "inche"),
        ("ft", "foot", "feet"),
        ("yd", "yard"),
        ("mi", "mile"),
        ("mg", "milligram"),
        ("g", "gram"),
        ("kg", "kilogram", "kilo"),
        ("t", "tonne"),
        ("oz", "ounce"),
        ("lb", "lbs", "pound"),
        ("ml", "millilitre", "milliliter"),
        ("cl", "centilitre", "centiliter"),
        ("l", "litre", "liter"),
        ("s", "sec", "second"),
        ("min", "minute"),
        ("h", "hr", "hour"),
        ("day",),
        ("week",),
        ("month",),
        ("year",),
    )
    for alias in names
}
"""Units that are told apart. A word that is not here says nothing: it may as well be a noun ("72 clips")."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact number with its unit, when that is a known one. ``num_decimals`` is how precisely it was written."""

    value: Fraction
    unit: str | None = None
    is_percent: bool = False
    num_decimals: int = 0
    start: int = 0
    end: int = 0


def quantities_in(text: str) -> list[Quantity]:
    """Every number in *text*, from left to right."""
    return [_quantity(match) for match in _NUMBER.finditer(text) if _is_number(match)]


def whole_quantity(text: str) -> Quantity | None:
    """The number that *text* is, with nothing beside it but a currency, a percent sign or a known unit; None otherwise."""
    text = text.strip().rstrip(".").strip()
    match = _NUMBER.match(text)
    if match is None or match.end() != len(text) or not _is_number(match):
        return None
    quantity = _quantity(match)
    return None if match["unit"] and quantity.unit is None else quantity


def same_number(gold: str, answer: str) -> bool:
    """Whether *answer* gives the number *gold*.

    The number of *answer* is the first one of what it states ("The answer is 72 clips", behind the last "=" if there is
    one), else the last one of the text. It must be equal exactly; only where *gold* has decimals may the answer have
    more of them and be rounded. Known units that differ, and a percent sign against another unit, make it wrong.
    """
    want = whole_quantity(gold) or next(iter(quantities_in(gold)), None)
    got = _number_of(answer)
    if want is None or got is None:
        return False
    if want.unit and (got.is_percent or (got.unit and got.unit != want.unit)):
        return False
    if got.value == want.value:
        return True
    return 0 < want.num_decimals < got.num_decimals and abs(got.value - want.value) * 2 * 10**want.num_decimals <= 1


def _number_of(answer: str) -> Quantity | None:
    text = without_reasoning(answer)
    stated = stated_answer(text)
    if stated is not None:
        found = quantities_in(stated.rpartition("=")[2]) or quantities_in(stated)
        if found:
            return None if _is_list(stated, found) else found[0]
    found = quantities_in(text)
    return found[-1] if found and not _is_list(text, found) else None


def _is_list(text: str, found: list[Quantity]) -> bool:
    """Whether *text* is nothing but several numbers in a row: none of them is *the* answer."""
    ends = [0, *(quantity.end for quantity in found)]
    starts = [*(quantity.start for quantity in found), len(text)]
    return len(found) > 1 and all(_SEPARATOR.fullmatch(text, end, start) for end, start in zip(ends, starts, strict=True))


def _is_number(match: re.Match[str]) -> bool:
    """Whether there are digits, and not so many that nobody meant a number: a model that loops writes thousands."""
    length = len(match["whole"] or "") + len(match["part"]) + len(match["below"] or "")
    return 0 < length <= MAX_DIGITS


def _quantity(match: re.Match[str]) -> Quantity:
    digits = re.sub(rf"[,{_SPACES}']", "", match["whole"] or "0") + match["part"]
    value = Fraction(digits) * Fraction(10) ** int(match["power"] or 0) / int(match["below"] or 1) * _TIMES.get(match["times"] or "", 1)
    negative = (match["sign"] or "+") in "-−" or bool(match["late"])
    unit = (match["unit"] or "").lower()
    return Quantity(
        value=-value if negative else value,
        unit=_UNITS.get(unit) or _UNITS.get(unit.removesuffix("s")),
        is_percent=bool(match["percent"]),
        num_decimals=max(0, len(match["part"]) - 1),
        start=match.start(),
        end=match.end(),
    )
