"""Routing by name: the caller, or the strategy, says which expert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from domain.errors import InvalidRequest, NoEligibleExpert
from domain.nearest import nearest
from domain.quoting import quoted
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision, RoutingQuery, ScoredExpert
from routers.adjust import refuse_adjustments
from routers.options import check_known, expert_list


class ExplicitRouter:
    """Selects the expert that the request names as its model, or those that the strategy names as ``experts``."""

    name = "explicit"

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ``InvalidRequest`` for anything but ``experts``; whether they exist is checked where the strategy is stored."""
        check_known(options, ("experts",), router=self.name)

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:
        """Raises ``NoEligibleExpert`` when a named expert may not be used now, ``InvalidRequest`` when none is named."""
        refuse_adjustments(query.request.options, router=self.name)
        eligible = [card.id for card in query.experts]
        named, by = self._named(query, snapshot, eligible)
        missing = [name for name in named if name not in eligible]
        if missing:
            raise NoEligibleExpert(f"not eligible for this request: {', '.join(missing)}", reasons=dict.fromkeys(missing, "not eligible"))
        others = [expert_id for expert_id in eligible if expert_id not in named]
        chosen = tuple(ScoredExpert(expert_id, 1.0, True, f"named by {by}") for expert_id in dict.fromkeys(named))
        rest = tuple(ScoredExpert(expert_id, 0.0, False, f"not named by {by}") for expert_id in others)
        return RoutingDecision(
            router=self.name, selected=tuple(named), considered=chosen + rest, reason=f"{', '.join(named)}: named by {by}."
        )

    def _named(self, query: RoutingQuery, snapshot: RegistrySnapshot, eligible: Sequence[str]) -> tuple[list[str], str]:
        """1. the strategy's ``experts``, 2. the model's name, 3. the only eligible expert."""
        if "experts" in query.options:
            return self._listed(query.options["experts"], snapshot), "the strategy"
        if query.request.model in snapshot.experts or query.request.model in eligible:
            return [query.request.model], "the model's name"
        if len(eligible) == 1:
            return [eligible[0]], "being the only one allowed"
        raise InvalidRequest(
            f"the router 'explicit' needs an expert's id as model, or router_options.experts; model is {quoted(query.request.model)}",
            param="model",
        )

    def _listed(self, value: object, snapshot: RegistrySnapshot) -> list[str]:
        param, names = "router_options.experts", expert_list(value)
        for name in names:
            if name not in snapshot.experts:
                near = nearest(name, snapshot.experts)
                hint = f"; did you mean {near!r}?" if near else ""
                raise InvalidRequest(f"{param} names {quoted(name)}, which is not registered{hint}", param=param)
        return names
