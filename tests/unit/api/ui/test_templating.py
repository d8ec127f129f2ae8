"""How figures are written for people."""

from __future__ import annotations

import pytest

from api.ui.templating import number


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, "–"), (0, "0"), (7.0, "7"), (12345, "12,345"), (1234.5, "1,234"), (2.6667, "2.67"), (-0.5, "-0.5"), (0.0000347, "0.0000347"),
     (8e-6, "0.000008"), (99.96, "100")],
)  # fmt: skip
def test_a_number_has_the_digits_that_matter_and_no_powers_of_ten(value: float | None, told: str) -> None:
    assert number(value) == told
