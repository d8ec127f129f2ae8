"""What one request may use in all, beside calls and seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

Bound = TypeVar("Bound", int, float)


@dataclass(frozen=True, slots=True)
class Budget:
    """None: no bound."""

    max_tokens: int | None = None
    """Of prompts and answers of all calls together: what it costs."""
    max_sequential_tokens: int | None = None
    """Of answers that are waited for one after the other; of calls that run at once the longest counts. How long it takes."""
    max_price: float | None = None
    """US dollars, by the prices of the cards."""

    @property
    def is_bounded(self) -> bool:
        return (self.max_tokens, self.max_sequential_tokens, self.max_price) != (None, None, None)

    def within(self, other: Budget) -> Budget:
        """The tighter of both, bound by bound."""
        return Budget(
            _tighter(self.max_tokens, other.max_tokens),
            _tighter(self.max_sequential_tokens, other.max_sequential_tokens),
            _tighter(self.max_price, other.max_price),
        )


UNBOUNDED = Budget()


def _tighter(one: Bound | None, other: Bound | None) -> Bound | None:
    return other if one is None else one if other is None else min(one, other)
