"""Capitals, countries and continents; chemical elements with symbol and atomic number.

Facts have no unseen operands, so here the phrasings are what training never sees.
"""

from __future__ import annotations

from random import Random

from zoo.questions.base import Question, Split, choose_phrasing, dress
from zoo.questions.words import MONTHS, NAMES, WEEKDAYS

_COUNTRIES = """
France|Paris|Europe;Spain|Madrid|Europe;Italy|Rome|Europe;Germany|Berlin|Europe;Portugal|Lisbon|Europe;Norway|Oslo|Europe;
Sweden|Stockholm|Europe;Finland|Helsinki|Europe;Denmark|Copenhagen|Europe;Poland|Warsaw|Europe;Austria|Vienna|Europe;
Hungary|Budapest|Europe;Greece|Athens|Europe;Ireland|Dublin|Europe;Belgium|Brussels|Europe;Iceland|Reykjavik|Europe;
Romania|Bucharest|Europe;Bulgaria|Sofia|Europe;Serbia|Belgrade|Europe;Croatia|Zagreb|Europe;Ukraine|Kyiv|Europe;
Estonia|Tallinn|Europe;Latvia|Riga|Europe;Lithuania|Vilnius|Europe;Slovakia|Bratislava|Europe;Slovenia|Ljubljana|Europe;
Albania|Tirana|Europe;Switzerland|Bern|Europe;Netherlands|Amsterdam|Europe;Malta|Valletta|Europe;
Japan|Tokyo|Asia;China|Beijing|Asia;India|New Delhi|Asia;Thailand|Bangkok|Asia;Vietnam|Hanoi|Asia;Indonesia|Jakarta|Asia;
Nepal|Kathmandu|Asia;Mongolia|Ulaanbaatar|Asia;Pakistan|Islamabad|Asia;Iran|Tehran|Asia;Iraq|Baghdad|Asia;Syria|Damascus|Asia;
Jordan|Amman|Asia;Lebanon|Beirut|Asia;Oman|Muscat|Asia;Qatar|Doha|Asia;Bangladesh|Dhaka|Asia;Cambodia|Phnom Penh|Asia;
Laos|Vientiane|Asia;Philippines|Manila|Asia;Uzbekistan|Tashkent|Asia;Afghanistan|Kabul|Asia;
Egypt|Cairo|Africa;Kenya|Nairobi|Africa;Morocco|Rabat|Africa;Tunisia|Tunis|Africa;Algeria|Algiers|Africa;Ghana|Accra|Africa;
Nigeria|Abuja|Africa;Senegal|Dakar|Africa;Ethiopia|Addis Ababa|Africa;Uganda|Kampala|Africa;Rwanda|Kigali|Africa;
Zambia|Lusaka|Africa;Angola|Luanda|Africa;Mali|Bamako|Africa;Namibia|Windhoek|Africa;Sudan|Khartoum|Africa;Libya|Tripoli|Africa;
Somalia|Mogadishu|Africa;Zimbabwe|Harare|Africa;Madagascar|Antananarivo|Africa;
Canada|Ottawa|North America;Mexico|Mexico City|North America;Cuba|Havana|North America;Jamaica|Kingston|North America;
Panama|Panama City|North America;Honduras|Tegucigalpa|North America;Nicaragua|Managua|North America;Costa Rica|San Jose|North America;
Brazil|Brasilia|South America;Argentina|Buenos Aires|South America;Chile|Santiago|South America;Peru|Lima|South America;
Colombia|Bogota|South America;Ecuador|Quito|South America;Uruguay|Montevideo|South America;Paraguay|Asuncion|South America;
Venezuela|Caracas|South America;Guyana|Georgetown|South America;Australia|Canberra|Oceania;New Zealand|Wellington|Oceania;
Fiji|Suva|Oceania;Samoa|Apia|Oceania
"""
COUNTRIES = tuple(tuple(row.strip().split("|")) for row in _COUNTRIES.split(";"))
"""Rows ``(country, capital, continent)``."""

_ELEMENTS = """
hydrogen H;helium He;lithium Li;beryllium Be;boron B;carbon C;nitrogen N;oxygen O;fluorine F;neon Ne;sodium Na;magnesium Mg;
aluminium Al;silicon Si;phosphorus P;sulfur S;chlorine Cl;argon Ar;potassium K;calcium Ca;scandium Sc;titanium Ti;vanadium V;
chromium Cr;manganese Mn;iron Fe;cobalt Co;nickel Ni;copper Cu;zinc Zn;gallium Ga;germanium Ge;arsenic As;selenium Se;
bromine Br;krypton Kr;rubidium Rb;strontium Sr;yttrium Y;zirconium Zr;niobium Nb;molybdenum Mo;technetium Tc;ruthenium Ru;
rhodium Rh;palladium Pd;silver Ag;cadmium Cd;indium In;tin Sn;antimony Sb;tellurium Te;iodine I;xenon Xe;caesium Cs;barium Ba
"""
ELEMENTS = tuple((*row.split(), str(number)) for number, row in enumerate(_ELEMENTS.split(";"), 1))
"""Rows ``(name, symbol, atomic number)`` from hydrogen (1) to barium (56)."""

NUM_MISLEADING_HELD_OUT = 3
"""Of a relation's misleading phrasings; three for validation, three for the test set."""

RELATIONS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "capital": (
        "capitals",
        ("Help me with the capital of {c}.", "I need the capital of {c}.", "We talk about {c}. What is its capital?", "{c}'s capital, please.", "Of {c}, what is the capital?", "Take {c}: which city is its capital?", "The capital of {c}, what is it?", "Someone asked for the capital of {c}. Which city?", "What is the capital of {c}?", "Capital of {c}?", "Name the capital of {c}.", "Which city is the capital of {c}?", "{c}: capital?",
         "Give me the capital of {c}.", "What's the capital city of {c}?", "The capital of {c} is?", "Tell me {c}'s capital.",
         "Which city governs {c}?", "What is {c}'s capital city?", "Where is the government of {c}?", "Say the capital of {c}.",
         "What city is the capital of {c}?", "The capital city of {c}?", "Do you know the capital of {c}?",
         "Which city is {c}'s capital?", "Please name {c}'s capital city.", "What do you call the capital of {c}?", "I forgot the capital of {c}. What is it?"),
        ("What was the capital of {c} on 3 May 2021?", "I land in {c} on Friday. What is its capital?", "In one word: the capital of {c}?",
         "I have 12 days in {c}. Name its capital.", "It is 40 km away: what is the capital of {c}?", "Spell the capital of {c} correctly: what is it?",
         "What is the capital of {c} in March?", "Next Monday I visit {c}. What is the capital?", "I counted 7 letters: capital of {c}?",
         "My train leaves on 12 June: what is the capital of {c}?", "What was the capital of {c} on 8 October 1996?",
         "I land in {c} on 4 August. What is its capital?",
         "What was the capital of {c} on 14 July 2019?", "Next Thursday, 6 May, I visit {c}. What is the capital?", "After 5 hours of flight I reach {c}. What is its capital?"),
    ),
    "country": (
        "capitals",
        ("I need the country whose capital is {k}.", "Take the capital {k}: which country?", "We talk about {k}. Of which country is it the capital?", "{k} is the capital of which country?", "Which country has {k} as its capital?", "Of which country is {k} the capital?", "{k} is the capital of?",
         "Name the country whose capital is {k}.", "What country's capital is {k}?", "Which country is governed from {k}?", "{k}: capital of which country?",
         "What country has the capital {k}?", "In which country is the capital {k}?", "Which nation has the capital {k}?", "The capital {k} belongs to which country?"),
        ("I fly to {k} on Sunday. It is the capital of which country?", "{k} has many letters. It is the capital of which country?",
         "In 30 minutes I land in {k}, capital of which country?", "On 1 July I saw {k}, the capital of which country?",
         "I fly to {k} on 3 March. It is the capital of which country?", "{k} has 2 rivers. It is the capital of which country?",
         "In 6 days I land in {k}, capital of which country?", "I fly to {k} in April. It is the capital of which country?",
         "{k}, 900 km away, is the capital of which country?"),
    ),
    "continent": (
        "continents",
        ("We talk about {c}. Which continent is it on?", "I need the continent of {c}.", "Take {c}: on which continent is it?", "On which continent is {c}?", "Which continent is {c} in?", "What continent does {c} belong to?", "{c} is on which continent?", "Name the continent of {c}.",
         "{c}: continent?", "Continent of {c}?", "In which continent does {c} lie?", "Where is {c}: which continent?", "What is the continent of {c}?",
         "Which continent does {c} lie on?", "To which continent does {c} belong?"),
        ("On Tuesday I fly to {c}. Which continent is that?", "The word {c} names a country on which continent?", "For 3 weeks I stay in {c}, on which continent?",
         "On 2 June I fly to {c}. Which continent is that?", "The letter names {c}, a country on which continent?",
         "On Sunday I fly to {c}. On which continent is it?", "For 10 days I stay in {c}, on which continent?",
         "By 9 May I am in {c}. On which continent is it?"),
    ),
    "symbol": (
        "chemical symbols",
        ("I need the symbol of {e}.", "We talk about {e}. What is its symbol?", "Take {e}: which symbol does it have?", "The symbol of {e}, what is it?", "What is the chemical symbol of {e}?", "Symbol for {e}?", "What is the symbol for {e}?", "Chemical symbol of {e}?", "Give the symbol of {e}.",
         "Which symbol stands for {e}?", "{e}: chemical symbol?", "How is {e} abbreviated in chemistry?", "Name the symbol of the element {e}.",
         "What symbol does {e} have?", "In the periodic table, what is {e}'s symbol?", "Which chemical symbol does {e} have?",
         "What's the element symbol of {e}?", "Write the chemical symbol for {e}."),
        ("Which letters stand for {e} in the periodic table?", "In one or two letters: the symbol for {e}?", "I bought 3 kg of {e}. What is its chemical symbol?",
         "On Monday we studied {e}. What is its symbol?", "A {e} ring from Rome: what is the symbol of {e}?",
         "I bought 8 g of {e}. What is its symbol?", "On 5 May we studied {e}. What is its chemical symbol?",
         "I lost 20 ml of {e}. What is its chemical symbol?", "A {e} coin from Paris: what is the symbol of {e}?", "After 2 hours of class: symbol of {e}?"),
    ),
    "element": (
        "chemical symbols",
        ("We talk about {s} in chemistry. Which element is it?", "Take the symbol {s}: which element is it?", "I need the element with the symbol {s}.", "Which element has the symbol {s}?", "What element is {s}?", "{s} is the symbol of which element?", "Name the element with symbol {s}.",
         "What does the chemical symbol {s} stand for?", "Element with the symbol {s}?", "Which chemical element is written {s}?", "The symbol {s} means which element?",
         "In chemistry, what is {s}?", "Which element does {s} denote?"),
        ("The capital letters {s} on a flask name which element?", "5 g of {s}: which element is it?", "In the word list, {s} is which chemical element?",
         "7 kg of {s}: which element is it?", "On Monday I saw {s} on a box. Which element is it?",
         "In the letter, {s} is which chemical element?", "12 litres of {s}: which element is it?",
         "On Friday I saw {s} on a bottle. Which element is it?"),
    ),
    "number": (
        "atomic numbers",
        ("We talk about {e}. What is its atomic number?", "I need the atomic number of {e}.", "Take {e}: which atomic number?", "What is the atomic number of {e}?", "Atomic number of {e}?", "Which atomic number does {e} have?", "Give the atomic number of {e}.",
         "How many protons does {e} have?", "{e}: atomic number?", "How many protons are in an atom of {e}?", "What number is {e} in the periodic table?",
         "Name the atomic number of {e}.", "Number of protons in {e}?", "Which number has {e} in the periodic table?", "Tell me {e}'s atomic number."),
        ("On which place of the periodic table is {e}? Give the number.", "A Roman coin of {e}: atomic number of {e}?", "I have 6 kg of {e}. What is its atomic number?",
         "On Friday we learned {e}. What is its atomic number?", "A French coin of {e}: what is the atomic number of {e}?",
         "I have 9 litres of {e}. What is its atomic number?", "On 7 July I bought {e}. What is its atomic number?",
         "In March we learned {e}. What is its atomic number?"),
    ),
    "numbered": (
        "atomic numbers",
        ("We talk about atomic number {n}. Which element is it?", "I need the element with {n} protons.", "Take atomic number {n}: which element?", "Which element has atomic number {n}?", "Element with atomic number {n}?", "What element has {n} protons?", "Name the element with atomic number {n}.",
         "Atomic number {n} is which element?", "Which element is number {n} in the periodic table?", "Which atom has {n} protons?", "Element number {n}?",
         "What is element number {n}?", "The atomic number {n} belongs to which element?"),
        ("Chapter one: element {n} of the periodic table is?", "Add no words: which element has atomic number {n}?", "It took 4 days to learn that element {n} is which element?",
         "In Rome they asked: which element has atomic number {n}?", "On Tuesday we learned: atomic number {n} is which element?",
         "In March they asked: which element has atomic number {n}?", "Chapter two: which element has atomic number {n}?",
         "In Paris they asked: which element has {n} protons?"),
    ),
}  # fmt: skip
"""Per relation: skill, phrasings (the last ones are held out), misleading phrasings (likewise)."""

_DISTRACTIONS = (
    "On {d} it rained.", "In {m} we travel.", "It is {n} km away.", "My friend {x} asks:", "For a quiz:", "We have {n} minutes.", "I was born in {m}.",
    "{x} and {y} do not know.", "Page {n} asks this:", "After {n} days I still wonder:", "It costs {n} dollars to know.", "On {d}, {x} said:",
)  # fmt: skip
_AFTERTHOUGHTS = (
    "{x} wants to know.",
    "I forgot.",
    "It is {d} already.",
    "We have {n} minutes.",
    "That was the question in {m}.",
    "Can you tell me?",
)
_ANSWER_COLUMN = {"capital": 1, "country": 0, "continent": 2, "symbol": 1, "element": 0, "number": 2, "numbered": 0}


def _distracted(rng: Random, text: str) -> str:
    """*text* between sentences that have nothing to do with it: only in training, so that experts learn what to overlook."""
    x, y = rng.sample(NAMES, 2)
    words = {"d": rng.choice(WEEKDAYS), "m": rng.choice(MONTHS), "n": rng.randint(2, 900), "x": x, "y": y}
    if rng.random() < 0.6:
        text = f"{rng.choice(_DISTRACTIONS).format(**words)} {text}"
    if rng.random() < 0.5:
        text = f"{text} {rng.choice(_AFTERTHOUGHTS).format(**words)}"
    return text


def generate(rng: Random, split: Split, *, tricky: bool = False) -> Question:
    tricky = tricky or rng.random() < 0.2
    relation = rng.choice(("capital", "capital", *RELATIONS))
    skill, plain, misleading = RELATIONS[relation]
    phrasing = choose_phrasing(
        rng, split, misleading if tricky else plain, num_held_out=NUM_MISLEADING_HELD_OUT if tricky else 1 if len(plain) < 14 else 2
    )
    if relation in ("capital", "country", "continent"):
        row = rng.choice(COUNTRIES)
        text = phrasing.format(c=row[0], k=row[1])
    else:
        row = rng.choice(ELEMENTS)
        text = phrasing.format(e=row[0], s=row[1], n=row[2])
    if split == "train" and rng.random() < 0.4:
        text = _distracted(rng, text)
    return Question(dress(rng, text), row[_ANSWER_COLUMN[relation]], "facts", skill, tricky=tricky)
