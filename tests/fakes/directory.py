"""A ``Directory`` that holds what it is given, a router that decides what it is told, a sink that keeps traces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from domain.cascade import CascadeRule
from domain.experts import Backend, ExpertCard, HealthState
from domain.plan import Outcome
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision, RoutingQuery, ScoredExpert
from domain.skills import AggregatorProfile
from domain.strategy import Strategy
from domain.trace import Trace


def card(expert_id: str, **changes: object) -> ExpertCard:
    """A card that names only what matters to the test."""
    return ExpertCard(**{"id": expert_id, "backend": Backend.EMBEDDED, "model": expert_id, **changes})  # type: ignore[arg-type]


class FakeDirectory:
    """Fixed experts; health as set; records outcomes."""

    def __init__(
        self,
        cards: Iterable[ExpertCard],
        *,
        strategies: Iterable[Strategy] = (),
        aggregator_profiles: Mapping[str, AggregatorProfile] | None = None,
    ) -> None:
        self._snapshot = RegistrySnapshot(
            version=1,
            experts={c.id: c for c in cards},
            strategies={s.id: s for s in strategies},
            aggregator_profiles=dict(aggregator_profiles or {}),
        )
        self.health: dict[str, HealthState] = {}
        self.recorded: list[Outcome] = []

    def snapshot(self) -> RegistrySnapshot:
        return self._snapshot

    def health_of(self, expert_id: str) -> HealthState:
        return self.health.get(expert_id, HealthState.CLOSED)

    def begin_call(self, expert_id: str) -> int | None:
        return None if self.health_of(expert_id) is HealthState.OPEN else 1

    def record(self, outcome: Outcome, *, call: int | None = None) -> None:
        self.recorded.append(outcome)


class FakeRouter:
    """Selects the given experts, as far as they are eligible, with falling scores; keeps the queries it was asked."""

    def __init__(
        self,
        *selected: str,
        name: str = "skills",
        category: str | None = None,
        choose: Callable[[RoutingQuery], Sequence[str]] | None = None,
    ) -> None:
        self.name = name
        self._selected, self._category, self._choose = selected, category, choose
        self.vector: bytes | None = None
        """What its decisions carry."""
        self.queries: list[RoutingQuery] = []

    def check_options(self, options: Mapping[str, object]) -> None:
        """Takes any."""

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:
        self.queries.append(query)
        known = [expert.id for expert in query.experts]
        wanted = list(self._choose(query)) if self._choose else list(self._selected) or known
        selected = tuple(expert_id for expert_id in wanted if expert_id in known)
        scores = {expert_id: round(0.9 - 0.1 * i, 3) for i, expert_id in enumerate(dict.fromkeys(selected))}
        considered = tuple(ScoredExpert(e, scores.get(e, 0.0), e in selected) for e in sorted(known, key=lambda e: -scores.get(e, 0.0)))
        return RoutingDecision(self.name, selected, considered, "as scripted", category=self._category, vector=self.vector)


class CascadingRouter(FakeRouter):
    """As scripted; who is selected is asked one after the other."""

    def __init__(self, rule: CascadeRule, *selected: str, **options: Any) -> None:
        super().__init__(*selected, **options)
        self._rule = rule

    async def route(self, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:
        return replace(await super().route(query, snapshot), cascade=self._rule)


class KeptTraces:
    """A trace sink that keeps everything."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []

    def emit(self, trace: Trace) -> None:
        self.traces.append(trace)
