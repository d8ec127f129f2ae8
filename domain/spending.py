"""What requests use, in tokens and in money, and the periods that budgets are for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from domain.chat import Usage
from domain.experts import Price

NANO = 1_000_000_000
"""Money is counted in whole billionths of a US dollar, so that sums are exact: a token of a cheap model costs a hundred of them."""
_PER_TOKEN = NANO // 1_000_000
"""From dollars per million tokens."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens and billionths of a US dollar."""

    tokens: int = 0
    nano_usd: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.tokens + other.tokens, self.nano_usd + other.nano_usd)


NOTHING = Spent()


def cost(price: Price, usage: Usage) -> int:
    """What *usage* costs, in billionths of a US dollar, rounded up."""
    return math.ceil((price.prompt * usage.prompt_tokens + price.completion * usage.completion_tokens) * _PER_TOKEN)


def nano_usd(dollars: float) -> int:
    """*dollars* in billionths."""
    return round(dollars * NANO)


def day_of(timestamp: float) -> str:
    """The UTC day of seconds since the epoch: "2026-11-22". Its month is the first seven characters."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d")


def seconds_left(period: str, timestamp: float) -> float:
    """Until the day ("2026-11-22") or month ("2026-11") *period* is over, which *timestamp* is in."""
    now = datetime.fromtimestamp(timestamp, UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    is_day = len(period) > len("2026-11")
    end = midnight + timedelta(days=1) if is_day else (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return (end - now).total_seconds()
