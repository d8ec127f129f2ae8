"""What operators and callers lay over a router's scores, whichever router it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from domain.experts import ExpertCard

MAX_BOOST = 1.0
"""Of a score in [0, 1]: enough to put anybody first or last."""
MAX_PRICE_WEIGHT = 1000.0
"""Score for each US dollar per million tokens; the cheapest models cost a few hundredths of one."""


@dataclass(frozen=True, slots=True)
class RoutingAdjustments:
    """Part of a strategy. A request may add to it."""

    allow: tuple[str, ...] | None = None
    """Only these experts, in every role; None: any."""
    deny: tuple[str, ...] = ()
    """Never these, in any role."""
    boost: Mapping[str, float] = field(default_factory=dict)
    """Expert id to what is added to its score, in [-1, 1] (after MoTE's tunable experts, T33)."""
    price_weight: float = 0.0
    """λ of ``score - λ · price``, with the price as ``blended_price`` has it."""
    load_weight: float = 0.0
    """What an expert loses when all its places are taken (T4), in [0, 1]; one as long a queue more, it loses as much again."""
    session_weight: float = 0.0
    """What the expert gains that answered the whole session so far, in [0, 1]; others by their share (T24, T40)."""

    @property
    def moves_scores(self) -> bool:
        """Whether any score may change."""
        return bool(self.boost) or self.price_weight != 0 or self.load_weight != 0 or self.session_weight != 0

    def named_experts(self) -> dict[str, str]:
        """Every expert that is named, by the field that names it ("deny[0]")."""
        named = {f"allow[{position}]": expert_id for position, expert_id in enumerate(self.allow or ())}
        named |= {f"deny[{position}]": expert_id for position, expert_id in enumerate(self.deny)}
        return named | {f"boost.{expert_id}": expert_id for expert_id in self.boost}


AS_SCORED = RoutingAdjustments()
"""Nothing is adjusted."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What adjustments look at beside the card, as it is when a request is routed."""

    load: Callable[[ExpertCard], float] = lambda _: 0.0
    """Calls that run and wait, as a share of the calls that the expert takes at once."""
    session_shares: Callable[[], Mapping[str, float]] = dict
    """Expert id to its share of the session's earlier answers, later ones counting more; shares sum to 1, or there are none."""


UNKNOWN_CIRCUMSTANCES = Circumstances()


def blended_price(card: ExpertCard) -> float:
    """US dollars for a million tokens of which three quarters are prompt, as chat traffic roughly is and price lists compare."""
    return 0.75 * card.price.prompt + 0.25 * card.price.completion
