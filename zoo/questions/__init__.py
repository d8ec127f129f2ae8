"""Question generators with exact answers, one per domain of the zoo."""

from __future__ import annotations

from zoo.questions import arithmetic, calendar, comparison, facts, logic, numerals, sequences, text, units
from zoo.questions.base import Generator

GENERATORS: dict[str, Generator] = {
    module.__name__.rsplit(".", 1)[1]: module.generate
    for module in (arithmetic, numerals, text, calendar, units, facts, logic, sequences, comparison)
}
"""Domain name to generator, in the order in which the domains are listed everywhere."""
