"""Word lists that several generators share, and English numerals."""

from __future__ import annotations

from random import Random

NAMES = ("Tom", "Ana", "Ben", "Mia", "Leo", "Zoe", "Sam", "Eva", "Max", "Ida", "Raj", "Lin", "Omar", "Nora", "Kai", "Ruth")
THINGS = ("apples", "books", "coins", "stamps", "pens", "shells", "cards", "nuts", "eggs", "stones", "letters", "tickets")

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

NOUNS = tuple(
    """apple bridge candle dragon engine forest garden hammer island jacket kettle ladder market needle orange pencil
    quartz rabbit silver tunnel umbrella valley window yellow zebra anchor basket camera desert eagle feather glacier
    harbor insect jungle kitchen lemon mirror notebook ocean planet quilt river saddle temple urchin violin whistle
    cotton butter castle donkey elbow fabric guitar helmet iceberg jewel kernel lantern magnet nectar onion parrot
    rocket sailor turtle vessel walnut barrel cactus dollar emerald falcon goblet hornet ivory jigsaw koala lizard
    meadow novel otter pillow raven spider ticket unicorn velvet wizard acorn banner copper dagger ember flute grape
    honey ink joker kite lotus mango night olive pearl queen robin stone tiger uncle vapor wheat yacht zipper blanket
    chimney diamond elephant fountain giraffe hospital instrument journey kingdom library mountain nation opera
    palace question reason science teacher university village weather teaspoon brother painter morning evening
    station captain doctor farmer soldier student winter summer autumn spring table chair floor carpet curtain
    bottle pepper sugar coffee cheese bread tomato potato carrot cabbage pumpkin melon cherry peach banana""".split()
)

# Words of other domains: a text operation on them is what misleads a router. From "sixteen" on they are all held out, the
# first of them for validation, from "eleventh" on for the test set.
LURES = tuple(
    """seventeen forty twelve ninety eleven thousand hundred seven thirteen eighty fifty three twenty nineteen
    monday tuesday wednesday thursday friday saturday sunday january february april august october december
    kilogram litre metre inch hour minute second gallon ounce mile france japan brazil norway egypt kenya paris
    london madrid oxygen carbon helium sodium iron gold silver calcium true false boolean logic binary roman
    numeral sequence addition plus minus capital element calendar leap decade century dozen
    sixteen sixth fiftieth ninefold billions half quarter times smaller average periodic hungary pakistan
    cambodia warsaw argon cobalt kelvin weight
    eleventh thirtieth twentieth fifteenth tenfold thirteens fives finland austria mongolia china oslo jakarta
    silicon nickel midnight kilometre litres negation fraction""".split()
)

_ONSETS = (
    "b",
    "br",
    "c",
    "cl",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "w",
    "z",
)
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "oo")
_CODAS = ("", "", "n", "r", "l", "s", "t", "m", "nd", "st", "ck", "x")


def coined_word(rng: Random) -> str:
    """A pronounceable word of three to nine letters that no dictionary need know."""
    syllables = rng.choice((1, 2, 2, 3))
    word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))
    return word[:9] if len(word) >= 3 else word + "en"


def number_in_words(n: int) -> str:
    """*n* (0 to 9999) in English words: 342 is "three hundred forty-two"."""
    if n < 20:
        return _UNITS[n]
    if n < 100:
        tens, unit = divmod(n, 10)
        return _TENS[tens] + (f"-{_UNITS[unit]}" if unit else "")
    if n < 1000:
        hundreds, rest = divmod(n, 100)
        return f"{_UNITS[hundreds]} hundred" + (f" {number_in_words(rest)}" if rest else "")
    thousands, rest = divmod(n, 1000)
    return f"{_UNITS[thousands]} thousand" + (f" {number_in_words(rest)}" if rest else "")


def roman(n: int) -> str:
    """*n* (1 to 3999) as a Roman numeral."""
    steps = ((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"),
             (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))  # fmt: skip
    out = ""
    for value, letters in steps:
        while n >= value:
            out, n = out + letters, n - value
    return out
