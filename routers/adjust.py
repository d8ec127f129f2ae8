"""Scores as an operator, a price list, the queues and the session's past would have them. Pure.

``adjusted = score + boost - λ · price - load + session``, each term by its weight in ``RoutingAdjustments``; then back into
[0, 1] without changing the order. Sources: operator overrides after Mixture of Tunable Experts (T33), load after Least-Loaded
Expert Parallelism (T4), the session's pool and history after EMO (T24) and RMoE (T40).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from domain.adjustments import Circumstances, RoutingAdjustments, blended_price
from domain.chat import RequestOptions
from domain.errors import InvalidRequest
from domain.experts import ExpertCard

UNSCORED = ("explicit", "fixed", "random")
"""Routers whose scores say nothing about how good an expert is: there is nothing to adjust."""
_MAX_LOAD = 2.0
"""All places taken, and as many calls waiting: longer queues frighten no more."""
_MARGIN = 1e-6
"""Scores beyond 0 and 1 are pressed together into so much of the ends of [0, 1], in their order."""
_SHOWN = 0.005
"""Terms below it, which would read 0.00, are not told."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What one expert gains and loses."""

    boost: float = 0.0
    price: float = 0.0
    load: float = 0.0
    session: float = 0.0

    @property
    def total(self) -> float:
        return self.boost + self.price + self.load + self.session

    def told(self, score: float) -> str:
        """*score* and the terms: "0.82, −0.05 price, −0.10 load"."""
        named = (("boost", self.boost), ("price", self.price), ("load", self.load), ("session", self.session))
        changes = (f"{'+' if value > 0 else '−'}{abs(value):.2f} {name}" for name, value in named if abs(value) >= _SHOWN)
        return ", ".join((f"{score:.2f}", *changes))


def terms_of(experts: Sequence[ExpertCard], adjustments: RoutingAdjustments, circumstances: Circumstances) -> list[Terms]:
    """Of each of *experts*, in their order. What has no weight is not looked at."""
    boost, price, load = adjustments.boost, adjustments.price_weight, adjustments.load_weight
    shares = circumstances.session_shares() if adjustments.session_weight else {}
    return [
        Terms(
            boost=boost.get(card.id, 0.0) if boost else 0.0,
            price=-price * blended_price(card) if price else 0.0,
            load=-load * min(circumstances.load(card), _MAX_LOAD) if load else 0.0,
            session=adjustments.session_weight * shares.get(card.id, 0.0) if shares else 0.0,
        )
        for card in experts
    ]


def adjusted_scores(scores: Sequence[float], terms: Sequence[Terms]) -> list[float]:
    """*scores* (each in [0, 1]) with their terms, in [0, 1] again: within it as they are, beyond it in their order.

    An expert with no score at all that gains nothing stays at 0: it is not suddenly a choice.
    """
    return [0.0 if score <= 0 and term.total <= 0 else _within(score + term.total) for score, term in zip(scores, terms, strict=True)]


def _within(value: float) -> float:
    if value < _MARGIN:
        return _MARGIN * math.exp(value - _MARGIN)
    if value > 1 - _MARGIN:
        return 1 - _MARGIN * math.exp(1 - _MARGIN - value)
    return value


def refuse_adjustments(options: RequestOptions, *, router: str) -> None:
    """Raise ``InvalidRequest`` for what a request wants adjusted of *router*, which scores nobody."""
    for name in ("boost", "price_weight", "load_weight", "session_weight"):
        if getattr(options, name):
            raise InvalidRequest(
                f"consilium.{name}: the router {router!r} scores nobody, there is nothing to adjust; leave it out",
                param=f"consilium.{name}",
            )
