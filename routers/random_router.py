"""Routing by lot: what every evaluation compares with."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision, RoutingQuery, ScoredExpert
from routers import pick
from routers.adjust import refuse_adjustments
from routers.options import check_known


class RandomRouter:
    """Every eligible expert is equally likely. Seeded: the same query seed draws the same experts."""

    name = "random"

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ``InvalidRequest`` for any option: this router has none."""
        check_known(options, (), router=self.name)

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:  # noqa: ARG002 - the port's signature
        """``top_k`` draws k different experts, ``sample`` k with replacement, ``dynamic`` one: no query looks hard to it."""
        pick.check(query.pick)
        refuse_adjustments(query.request.options, router=self.name)
        ids = [card.id for card in query.experts]
        rng = Random(query.seed)
        match query.pick.kind:
            case "sample":
                selected = rng.choices(ids, k=query.pick.k)
            case "top_k":
                selected = rng.sample(ids, min(query.pick.k, len(ids)))
            case _:
                selected = [rng.choice(ids)]
        share = 1 / len(ids)
        drawn = list(dict.fromkeys(selected))
        order = drawn + [expert_id for expert_id in ids if expert_id not in drawn]
        return RoutingDecision(
            router=self.name,
            selected=tuple(selected),
            considered=tuple(ScoredExpert(expert_id, share, expert_id in drawn, f"one of {len(ids)}, drawn by lot") for expert_id in order),
            reason=f"Drawn by lot with seed {query.seed}: {', '.join(selected)}.",
        )
