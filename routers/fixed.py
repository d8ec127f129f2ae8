"""Routing by a list: always the same experts, in the same order. A baseline, and the simplest strategy there is."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from domain.errors import NoEligibleExpert
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision, RoutingQuery, ScoredExpert
from routers import pick
from routers.adjust import refuse_adjustments
from routers.options import check_known, expert_list


class FixedRouter:
    """The first of ``router_options.experts`` that are eligible, whatever is asked: always k of them, as far as the list goes.

    Unlike with ``explicit``, one that is not eligible now gives its place to the next of the list.
    """

    name = "fixed"

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ``InvalidRequest`` for anything but ``experts``, a list of ids. A request may come to bring it later."""
        check_known(options, ("experts",), router=self.name)
        if "experts" in options:
            expert_list(options["experts"])

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:  # noqa: ARG002 - the port's signature
        """``sample`` draws k of the list with replacement, every other rule takes the first k. Raises ``InvalidRequest`` without a
        list, ``NoEligibleExpert`` when nobody of it is eligible."""
        pick.check(query.pick)
        refuse_adjustments(query.request.options, router=self.name)
        listed = list(dict.fromkeys(expert_list(query.options.get("experts"))))
        eligible = [card.id for card in query.experts]
        usable = [expert_id for expert_id in listed if expert_id in eligible]
        if not usable:
            raise NoEligibleExpert(
                f"nobody of the list is eligible for this request: {', '.join(listed)}", reasons=dict.fromkeys(listed, "not eligible")
            )
        if query.pick.kind == "sample":
            selected = sorted(Random(query.seed).choices(usable, k=query.pick.k), key=usable.index)
        else:
            selected = usable[: query.pick.k]
        # Falling, so that whoever stands in for one that fails is the next of the list.
        scores = {expert_id: 1 - place / len(usable) for place, expert_id in enumerate(usable)}
        chosen = tuple(
            ScoredExpert(expert_id, score, expert_id in selected, f"number {place} of the list")
            for place, (expert_id, score) in enumerate(scores.items(), 1)
        )
        rest = tuple(ScoredExpert(expert_id, 0.0, False, "not in the list") for expert_id in eligible if expert_id not in scores)
        reason = f"{', '.join(selected)}: the list's {'only eligible expert' if len(usable) == 1 else 'first eligible experts'}."
        if query.pick.kind == "sample":
            reason = f"Drawn from the list with seed {query.seed}: {', '.join(selected)}."
        return RoutingDecision(router=self.name, selected=tuple(selected), considered=chosen + rest, reason=reason)
