"""The routers by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from domain.quoting import quoted
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision, RoutingQuery
from domain.strategy import Strategy
from routers.adjust import UNSCORED


class Router(Protocol):
    """A routing policy, as the pipeline's port of the same name has it."""

    @property
    def name(self) -> str: ...

    def check_options(self, options: Mapping[str, Any]) -> None: ...

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision: ...


class RouterCatalogue(Mapping[str, Router]):
    """Name to router. Looking up an unknown name, also with ``get``, raises ``InvalidRequest`` that names the known ones."""

    def __init__(self, routers: Iterable[Router]) -> None:
        self._routers = {router.name: router for router in routers}

    def __getitem__(self, name: str) -> Router:
        if name in self._routers:
            return self._routers[name]
        hint = did_you_mean(name, sorted(self._routers), always_list=True)
        raise InvalidRequest(f"unknown router {quoted(name)}; {hint}", param="consilium.router")

    def check(self, strategy: Strategy) -> None:
        """Raise ``InvalidRequest`` for what every request of *strategy* would be refused for, or would not do what it says: options
        that its router does not take, adjustments of scores where there are none."""
        self[strategy.router].check_options(strategy.router_options)
        if strategy.router in UNSCORED and strategy.adjustments.moves_scores:
            raise InvalidRequest(
                f"adjustments: the router {strategy.router!r} scores nobody, so boost and weights change nothing; leave them out",
                param="adjustments",
            )

    def __contains__(self, name: object) -> bool:
        return name in self._routers

    def __iter__(self) -> Iterator[str]:
        return iter(self._routers)

    def __len__(self) -> int:
        return len(self._routers)
