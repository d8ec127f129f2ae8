"""The registry as one caller may see it. What a caller's rights hide is neither chosen nor named, in whatever text."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from domain.access import Access
from domain.chat import Chunk
from domain.errors import ConsiliumError, ExpertError, NoEligibleExpert
from domain.plan import Candidate, ExpertCall, ExpertFailure, Outcome
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision
from domain.strategy import Strategy
from orchestrator.ports import Workers

MAX_VIEWS = 256
"""Views that are kept of one snapshot: as many sets of rights as keys are likely to have. Another one is made anew, in about a
millisecond for a thousand experts."""
_SOMEBODY = "another expert"


@dataclass(frozen=True, slots=True)
class View:
    """One snapshot through one caller's rights. ``whole`` is for routers, which keep tables by its version and choose among the eligible
    only; ``seen`` for everything that looks names up."""

    whole: RegistrySnapshot
    seen: RegistrySnapshot
    hidden: re.Pattern[str] | None = None
    """Finds the ids of hidden experts in a text; None where nothing is hidden."""
    named: dict[str, RoutingDecision] = field(default_factory=dict, compare=False)
    """By the name of a model that is one expert: how a request for it is routed that has no options. It is the same for all of them."""

    def veiled(self, text: str) -> str:
        """*text* without the name of anybody hidden."""
        return text if self.hidden is None else self.hidden.sub(_SOMEBODY, text)

    def decision(self, decision: RoutingDecision) -> RoutingDecision:
        """*decision* without what names anybody hidden. Routers select among the eligible, so only texts can."""
        if self.hidden is None:
            return decision
        return replace(
            decision,
            considered=tuple(
                replace(expert, why=self.veiled(expert.why)) for expert in decision.considered if expert.expert_id in self.seen.experts
            ),
            reason=self.veiled(decision.reason),
            detail=self._plain(decision.detail),
        )

    def error(self, error: ConsiliumError) -> None:
        """Make *error* name nobody hidden."""
        if self.hidden is None:
            return
        error.message = self.veiled(error.message)
        error.args = (error.message,)
        if isinstance(error, NoEligibleExpert):
            error.reasons = {name: self.veiled(why) for name, why in error.reasons.items() if name in self.seen.experts}

    def outcome(self, outcome: Outcome) -> Outcome:
        """*outcome* whose failure, if it is one, names nobody hidden: a managed server bears the id of another expert, and who waits
        for one is told which."""
        if self.hidden is None or not isinstance(outcome, ExpertFailure):
            return outcome
        return replace(outcome, message=self.veiled(outcome.message))

    def workers(self, workers: Workers) -> Workers:
        """*workers*, whose failures and whose words on the wait for an expert name nobody hidden."""
        return workers if self.hidden is None else _VeiledWorkers(workers, self)

    def _plain(self, value: Any) -> Any:
        match value:
            case str():
                return self.veiled(value)
            case Mapping():
                kept = ((key, inner) for key, inner in value.items() if not (isinstance(key, str) and self._is_hidden(key)))
                return {key: self._plain(inner) for key, inner in kept}
            case list() | tuple():
                return [self._plain(inner) for inner in value]
            case _:
                return value

    def _is_hidden(self, name: str) -> bool:
        return self.hidden is not None and self.hidden.fullmatch(name) is not None


class _VeiledWorkers:
    """``Workers`` for who may not see every expert."""

    def __init__(self, workers: Workers, view: View) -> None:
        self._workers, self._view = workers, view

    async def complete(self, call: ExpertCall) -> Candidate:
        try:
            return await self._workers.complete(self._veiled(call))
        except ExpertError as error:
            raise self._of(error) from error

    async def stream(self, call: ExpertCall) -> AsyncIterator[Chunk]:
        source = self._workers.stream(self._veiled(call))
        try:
            async for chunk in source:
                yield chunk
        except ExpertError as error:
            raise self._of(error) from error
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

    def _veiled(self, call: ExpertCall) -> ExpertCall:
        hears = call.on_progress
        return call if hears is None else replace(call, on_progress=lambda text: hears(self._view.veiled(text)))

    def _of(self, error: ExpertError) -> ExpertError:
        """A copy: others who waited for the same server are told of the very error, and may see more."""
        told = copy(error)
        self._view.error(told)
        return told


class Views:
    """The views of the newest snapshot, made when first asked for. Not for threads."""

    def __init__(self) -> None:
        self._of: RegistrySnapshot | None = None
        self._views: OrderedDict[Access, View] = OrderedDict()

    def view(self, snapshot: RegistrySnapshot, access: Access) -> View:
        """*snapshot* as a caller with *access* may see it."""
        if snapshot is not self._of:
            self._of, self._views = snapshot, OrderedDict()
        found = self._views.get(access)
        if found is None:
            found = self._views[access] = view_of(snapshot, access)
            if len(self._views) > MAX_VIEWS:
                self._views.popitem(last=False)
        return found


def view_of(snapshot: RegistrySnapshot, access: Access) -> View:
    """*snapshot* as a caller with *access* may see it; the same object where nothing is hidden."""
    experts = {expert_id: card for expert_id, card in snapshot.experts.items() if access.sees(card)}
    hidden = sorted(snapshot.experts.keys() - experts.keys(), key=len, reverse=True)  # the longest first: "a-b" before "a"
    strategies = {
        strategy_id: _without(strategy, experts)
        for strategy_id, strategy in snapshot.strategies.items()
        if access.may_use_strategy(strategy_id)
    }
    if not hidden and len(strategies) == len(snapshot.strategies):
        return View(snapshot, snapshot)
    seen = replace(
        snapshot,
        experts=experts,
        strategies=strategies,
        profiles={expert_id: profile for expert_id, profile in snapshot.profiles.items() if expert_id in experts},
        aggregator_profiles={expert_id: profile for expert_id, profile in snapshot.aggregator_profiles.items() if expert_id in experts},
    )
    pattern = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, hidden))})(?![\w-]|\.\w)") if hidden else None
    return View(snapshot, seen, pattern)


def _without(strategy: Strategy, experts: Mapping[str, object]) -> Strategy:
    """*strategy* without a reader or a fallback that is hidden."""
    aggregator, fallback = strategy.aggregator_expert, strategy.fallback_expert
    if (aggregator is None or aggregator in experts) and (fallback is None or fallback in experts):
        return strategy
    return replace(
        strategy,
        aggregator_expert=aggregator if aggregator in experts else None,
        fallback_expert=fallback if fallback in experts else None,
    )
